# SPDX-License-Identifier: Apache-2.0
"""Slips on printers that answer for themselves: a real IPP printer, and a port that takes labels."""

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
    """A real IPP printer that takes the branch's slips."""
    with ipp_printer(tmp_path / "printer") as printer:
        point(engine, printer.uri)
        yield printer


def point(engine, uri):
    with engine.begin() as connection:
        connection.execute(update(Printer).values(uri=uri))


def state_of(engine, job_id):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob.state).where(PrintJob.id == job_id)).scalar_one()


def why_of(engine, job_id):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob.last_error).where(PrintJob.id == job_id)).scalar_one()


def words(engine):
    with engine.connect() as connection:
        bodies = connection.execute(
            select(OutboxEntry.body).where(OutboxEntry.queue == "reply.main-desk-1").order_by(OutboxEntry.id)
        ).scalars()
        return [SlipNotice.model_validate_json(body).message for body in bodies]


def look(context, clock, job_id):
    """As the sweep does it: when a look is due, it is had."""
    clock.now += timedelta(minutes=1)
    return [reconcile(each, context) for each in dispatch_reconciliations(context) if each == job_id][-1]


def test_a_slip_is_followed_to_its_end(printer, create_print_job, context, clock, engine):
    """Accepted when the printer has it, done when the printer says so; the station hears of it once."""
    job_id = create_print_job()

    assert print_job(job_id, context, lambda: 0.0) is State.ACCEPTED
    wait_until(lambda: look(context, clock, job_id) is State.DONE or state_of(engine, job_id) is State.DONE, "done")

    assert len(printer.documents()) == 1
    assert words(engine) == ["Slip sent to the printer main-slips"]


def test_paper_out_then_refilled(printer, create_print_job, context, clock, engine):
    """No paper: the station hears it. Refilled: the waiting slip comes out once, without anybody asking."""
    printer.paper_out()
    job_id = create_print_job()
    assert print_job(job_id, context, lambda: 0.0) is State.ACCEPTED

    def told():
        look(context, clock, job_id)
        return any("no paper" in message for message in words(engine))

    wait_until(told, "the station hears that there is no paper")
    printer.refill()
    wait_until(lambda: state_of(engine, job_id) is State.DONE or look(context, clock, job_id) is State.DONE, "done")

    assert len(printer.documents()) == 1
    assert words(engine) == [
        "Slip sent to the printer main-slips",
        "Slip waits in the printer main-slips: no paper",
        "Slip sent to the printer main-slips",
    ]


def test_a_printer_switched_off_and_on(printer, create_print_job, context, clock, engine):
    """Off: the slips wait and nothing is in doubt. On again: each comes out once, in order."""
    printer.stop()
    jobs = [create_print_job() for _ in range(3)]
    assert print_job(jobs[0], context, lambda: 0.0) is State.FAILED_SAFE
    printer.start()
    clock.now += timedelta(minutes=1)

    assert print_job(jobs[0], context, lambda: 0.0) is State.ACCEPTED
    assert [state_of(engine, job_id) for job_id in jobs] == [State.ACCEPTED] * 3
    wait_until(lambda: len(printer.documents()) == 3, "three slips")


def dies_while_sending(job_id, context):
    """A worker that recorded that it sends, and was killed."""
    claimed, _ = claim(job_id, context)
    assert isinstance(claimed, Claimed)
    _record_steps(claimed, context, [State.RENDERED, State.SENDING])
    return claimed


def test_died_while_sending_and_the_printer_has_it(printer, create_print_job, context, clock, engine):
    """The printer is asked by the slip's name and has it: no second one is sent."""
    job_id = create_print_job()
    claimed = dies_while_sending(job_id, context)
    open_printer(printer.uri).send(b"%PDF-1.4\n%%EOF\n", job_name=claimed.job_name, on_first_byte=lambda: None)
    clock.now += LEASE

    assert print_job(job_id, context, lambda: 0.0) is State.UNKNOWN
    wait_until(lambda: state_of(engine, job_id) is State.DONE or look(context, clock, job_id) is State.DONE, "done")
    assert len(printer.documents()) == 1


def test_died_while_sending_and_the_printer_knows_nothing(printer, create_print_job, context, clock, engine):
    """The printer has no such slip: a person is told so, and decides. Nothing is sent by itself."""
    job_id = create_print_job()
    dies_while_sending(job_id, context)
    clock.now += LEASE

    assert print_job(job_id, context, lambda: 0.0) is State.UNKNOWN
    assert look(context, clock, job_id) is State.UNKNOWN
    clock.now += timedelta(hours=1)
    assert list(dispatch_reconciliations(context)) == []
    assert (why_of(engine, job_id), printer.documents()) == (NO_SUCH_JOB, [])
    assert words(engine)[-1] == f"Look at the printer main-slips: the slip may be there or not: {NO_SUCH_JOB}"


def test_a_printer_that_dies_with_a_slip_in_hand(printer, create_print_job, context, clock, engine):
    """It accepted the slip and was reset: it knows nothing of it any more, so a person looks."""
    printer.paper_out()
    job_id = create_print_job()
    assert print_job(job_id, context, lambda: 0.0) is State.ACCEPTED
    printer.stop()
    assert look(context, clock, job_id) is State.ACCEPTED
    printer.start()

    wait_until(lambda: look(context, clock, job_id) is State.UNKNOWN, "nobody knows")
    assert words(engine)[-1].startswith("Look at the printer main-slips")


def test_a_printer_that_cannot_say_leaves_doubt_to_a_person(create_print_job, context, clock, engine, library):
    """A label printer's worker died while sending: it is asked nothing, and the slip stays in doubt."""
    job_id = create_print_job()
    point(engine, f"socket://127.0.0.1:{free_port()}")
    dies_while_sending(job_id, context)
    clock.now += LEASE

    assert print_job(job_id, context, lambda: 0.0) is State.UNKNOWN
    look(context, clock, job_id)
    clock.now += timedelta(hours=1)

    assert list(dispatch_reconciliations(context)) == []
    assert state_of(engine, job_id) is State.UNKNOWN
