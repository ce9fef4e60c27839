# SPDX-License-Identifier: Apache-2.0
"""Reconciliation of print jobs: a real IPP printer, and a port that accepts labels."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from schemas.database import open_engine
from schemas.models import OutboxEntry, Printer, PrintJob
from schemas.print_jobs import PrintState as State
from schemas.replies import SlipNotice
from tasks.printing.claim import LEASE, Claimed, claim
from tasks.printing.handler import _record_steps, print_job
from tasks.printing.printers.factory import open_printer
from tasks.printing.reconcile import NO_SUCH_JOB, dispatch_reconciliations, reconcile
from tests.network import free_port
from tests.polling import wait_until
from tests.printers import ipp_printer

pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.databases("sqlite")]


@pytest.fixture
def engine(sqlite_url):
    """SQLite alone: the printer is what is tried here."""
    engine = open_engine(sqlite_url)
    yield engine
    engine.dispose()


@pytest.fixture
def printer(engine, library, tmp_path):
    """An IPP printer for the slips of all branches."""
    with ipp_printer(tmp_path / "printer") as printer:
        set_printer_uri(engine, printer.uri)
        yield printer


def set_printer_uri(engine, uri):
    with engine.begin() as connection:
        connection.execute(update(Printer).values(uri=uri))


def state_of(engine, job_id):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob.state).where(PrintJob.id == job_id)).scalar_one()


def why_of(engine, job_id):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob.last_error).where(PrintJob.id == job_id)).scalar_one()


def notices(engine):
    with engine.connect() as connection:
        bodies = connection.execute(
            select(OutboxEntry.body).where(OutboxEntry.queue == "reply.main-desk-1").order_by(OutboxEntry.id)
        ).scalars()
        return [SlipNotice.model_validate_json(body).message for body in bodies]


def reconcile_when_due(context, clock, job_id):
    """Reconcile a job when it is due, as the sweep does."""
    clock.now += timedelta(minutes=1)
    return [reconcile(each, context) for each in dispatch_reconciliations(context) if each == job_id][-1]


def test_accepted_job_is_reconciled_until_it_is_done(printer, create_print_job, context, clock, engine):
    """Accepted when the printer has it, done when the printer reports so; the station gets one notice."""
    job_id = create_print_job()

    assert print_job(job_id, context, lambda: 0.0) is State.ACCEPTED
    wait_until(
        lambda: reconcile_when_due(context, clock, job_id) is State.DONE or state_of(engine, job_id) is State.DONE,
        "done",
    )

    assert len(printer.documents()) == 1
    assert notices(engine) == ["Slip sent to the printer main-slips"]


def test_job_waits_for_paper_and_is_printed_after_a_refill(printer, create_print_job, context, clock, engine):
    """Without paper the station gets a notice. After a refill the waiting slip is printed once, without another task."""
    printer.paper_out()
    job_id = create_print_job()
    assert print_job(job_id, context, lambda: 0.0) is State.ACCEPTED

    def is_notified():
        reconcile_when_due(context, clock, job_id)
        return any("no paper" in message for message in notices(engine))

    wait_until(is_notified, "the station is notified of the missing paper")
    printer.refill()
    wait_until(
        lambda: state_of(engine, job_id) is State.DONE or reconcile_when_due(context, clock, job_id) is State.DONE,
        "done",
    )

    assert len(printer.documents()) == 1
    assert notices(engine) == [
        "Slip sent to the printer main-slips",
        "Slip waits in the printer main-slips: no paper",
        "Slip sent to the printer main-slips",
    ]


def test_jobs_wait_for_a_switched_off_printer(printer, create_print_job, context, clock, engine):
    """While it is off, the jobs wait and none is in doubt. Switched on, it prints each once, in order."""
    printer.stop()
    jobs = [create_print_job() for _ in range(3)]
    assert print_job(jobs[0], context, lambda: 0.0) is State.FAILED_SAFE
    printer.start()
    clock.now += timedelta(minutes=1)

    assert print_job(jobs[0], context, lambda: 0.0) is State.ACCEPTED
    assert [state_of(engine, job_id) for job_id in jobs] == [State.ACCEPTED] * 3
    wait_until(lambda: len(printer.documents()) == 3, "three slips")


def die_while_sending(job_id, context):
    """Record that the job is being sent, as a worker that is killed then."""
    claimed, _ = claim(job_id, context)
    assert isinstance(claimed, Claimed)
    _record_steps(claimed, context, [State.RENDERED, State.SENDING])
    return claimed


def test_worker_died_while_sending_and_the_printer_has_the_job(printer, create_print_job, context, clock, engine):
    """The printer is queried by the job's name and has it: no second slip is sent."""
    job_id = create_print_job()
    claimed = die_while_sending(job_id, context)
    open_printer(printer.uri).send(b"%PDF-1.4\n%%EOF\n", job_name=claimed.job_name, on_first_byte=lambda: None)
    clock.now += LEASE

    assert print_job(job_id, context, lambda: 0.0) is State.UNKNOWN
    wait_until(
        lambda: state_of(engine, job_id) is State.DONE or reconcile_when_due(context, clock, job_id) is State.DONE,
        "done",
    )
    assert len(printer.documents()) == 1


def test_worker_died_while_sending_and_the_printer_has_no_job(printer, create_print_job, context, clock, engine):
    """The printer has no such job: an operator is notified and decides. Nothing is sent automatically."""
    job_id = create_print_job()
    die_while_sending(job_id, context)
    clock.now += LEASE

    assert print_job(job_id, context, lambda: 0.0) is State.UNKNOWN
    assert reconcile_when_due(context, clock, job_id) is State.UNKNOWN
    clock.now += timedelta(hours=1)
    assert list(dispatch_reconciliations(context)) == []
    assert (why_of(engine, job_id), printer.documents()) == (NO_SUCH_JOB, [])
    assert notices(engine)[-1] == f"Look at the printer main-slips: the slip may be there or not: {NO_SUCH_JOB}"


def test_printer_reset_with_an_accepted_job_leaves_it_unknown(printer, create_print_job, context, clock, engine):
    """It accepted the slip and was reset: it has no record of the job, so an operator decides."""
    printer.paper_out()
    job_id = create_print_job()
    assert print_job(job_id, context, lambda: 0.0) is State.ACCEPTED
    printer.stop()
    assert reconcile_when_due(context, clock, job_id) is State.ACCEPTED
    printer.start()

    wait_until(lambda: reconcile_when_due(context, clock, job_id) is State.UNKNOWN, "the result is unknown")
    assert notices(engine)[-1].startswith("Look at the printer main-slips")


def test_printer_without_tracking_leaves_the_job_unknown(create_print_job, context, clock, engine, library):
    """A worker died while sending to a label printer, which cannot be queried: the job stays unknown."""
    job_id = create_print_job()
    set_printer_uri(engine, f"socket://127.0.0.1:{free_port()}")
    die_while_sending(job_id, context)
    clock.now += LEASE

    assert print_job(job_id, context, lambda: 0.0) is State.UNKNOWN
    reconcile_when_due(context, clock, job_id)
    clock.now += timedelta(hours=1)

    assert list(dispatch_reconciliations(context)) == []
    assert state_of(engine, job_id) is State.UNKNOWN
