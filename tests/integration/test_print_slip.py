# SPDX-License-Identifier: Apache-2.0
"""From a Return to the slip in its folder, on real databases: once, whatever fails in between."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import sessionmaker
from uuid6 import uuid7

from schemas.models import OutboxEntry, PrintAttempt, Printer, PrintJob
from schemas.print_jobs import PrintState as State
from schemas.replies import SlipNotice
from tasks.context import Context
from tasks.printing.handler import LEASE, NEGLECTED, order_due, print_job
from tasks.returns.handler import House, return_items
from tasks.returns.reception import Received
from tests.clock import Clock

HOUSE = House(new_id=uuid7, undo_window=timedelta(minutes=10))


class Kept:
    """A publisher that publishes nothing: what was promised stays in the outbox, to be looked at."""

    def publish_outbox(self, entries):
        """Leave all to the sweep."""
        return 0


@pytest.fixture
def clock():
    return Clock(datetime.now(UTC))


@pytest.fixture
def here(engine, clock):
    return Context(sessionmaker(engine, expire_on_commit=False), clock, Kept(), "this-worker")


@pytest.fixture
def wanted(library, here):
    """A Return that wants a slip; gives the print job's id."""

    def make():
        _, [barcode] = library.request()
        with here.unit_of_work() as uow:
            return_items([Received(library.scan(barcode), None)], uow, HOUSE)
        with here.sessions() as session:
            return session.execute(select(PrintJob.id).order_by(PrintJob.created_at.desc())).scalars().first()

    return make


def job(engine, job_id):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob).where(PrintJob.id == job_id)).one()


def set_job(engine, job_id, **columns):
    with engine.begin() as connection:
        connection.execute(update(PrintJob).where(PrintJob.id == job_id).values(**columns))


def notices(engine):
    with engine.connect() as connection:
        bodies = connection.execute(
            select(OutboxEntry.body).where(OutboxEntry.queue == "reply.main-desk-1").order_by(OutboxEntry.id)
        ).scalars()
        return [SlipNotice.model_validate_json(body) for body in bodies]


def slips(library):
    return sorted(path.name for path in library.spool.rglob("*.pdf"))


def break_spool(library):
    """A file where the folder should be: the printer is away."""
    (library.spool / "main").write_text("in the way")


def mend_spool(library):
    (library.spool / "main").unlink()


def test_slip_comes_out_once(wanted, here, engine, library):
    """A wanted slip is sent, recorded and told; asked for again, nothing happens."""
    job_id = wanted()

    first = print_job(job_id, here, lambda: 0.0)
    second = print_job(job_id, here, lambda: 0.0)

    assert (first, second) == (State.DONE, None)
    assert slips(library) == [f"{job_id}.pdf"]
    done = job(engine, job_id)
    assert (done.state, done.attempts, done.spool_id) == (State.DONE, 1, f"{job_id}.pdf")
    assert [notice.message for notice in notices(engine)] == ["Slip sent to the printer main-slips"]


def test_failed_slip_is_tried_again_by_itself(wanted, here, engine, clock, library):
    """A printer that is away: the job waits, the sweep orders it when it is due, and it comes out once."""
    job_id = wanted()
    break_spool(library)

    failed = print_job(job_id, here, lambda: 0.0)
    too_early = order_due(here)
    mend_spool(library)
    clock.now += timedelta(seconds=2)
    due = order_due(here)
    done = print_job(job_id, here, lambda: 0.0)

    assert failed is State.FAILED_SAFE
    assert (list(too_early), list(due)) == ([], [job_id])
    assert done is State.DONE
    assert slips(library) == [f"{job_id}.pdf"]
    with engine.connect() as connection:
        attempts = connection.execute(select(PrintAttempt.outcome, PrintAttempt.error).order_by(PrintAttempt.id)).all()
    assert [outcome for outcome, _ in attempts] == [State.FAILED_SAFE, State.DONE]
    assert "no folder" in attempts[0].error
    assert [notice.state for notice in notices(engine)] == ["failed_safe", "done"]


def test_printer_that_stays_away_holds_its_slips(wanted, here, engine, clock, library):
    """After five failures the job is held, told once, and still tried from time to time."""
    job_id = wanted()
    break_spool(library)

    states = []
    for _ in range(7):
        states.append(print_job(job_id, here, lambda: 0.0))
        clock.now += timedelta(minutes=5)

    assert states == [State.FAILED_SAFE] * 4 + [State.HELD] * 3
    assert [notice.state for notice in notices(engine)][:2] == ["failed_safe", "held"]
    mend_spool(library)
    assert print_job(job_id, here, lambda: 0.0) is State.DONE


def test_printer_on_hold_holds_its_slips(wanted, here, engine, clock, library):
    """A printer put on hold takes no slip; afterwards it does."""
    job_id = wanted()
    with engine.begin() as connection:
        connection.execute(update(Printer).values(on_hold=True))

    held = print_job(job_id, here, lambda: 0.0)
    with engine.begin() as connection:
        connection.execute(update(Printer).values(on_hold=False))
    clock.now += NEGLECTED
    done = print_job(job_id, here, lambda: 0.0)

    assert (held, done) == (State.HELD, State.DONE)
    assert notices(engine)[0].message == "Slip is held, the Return stands: printer main-slips is on hold"


def test_branch_without_a_printer_holds_its_slips(wanted, here, engine, library):
    """No printer at all: held, in words."""
    job_id = wanted()
    set_job(engine, job_id, printer_id=None)

    assert print_job(job_id, here, lambda: 0.0) is State.HELD
    assert job(engine, job_id).last_error == "no printer is set up for this branch"


@pytest.mark.parametrize("state", [State.CLAIMED, State.RENDERED, State.SENDING])
def test_a_dead_workers_slip_comes_out_once(wanted, here, engine, clock, library, state):
    """A worker that died with a slip in hand: when its lease is over another one finishes it; a folder can repeat."""
    job_id = wanted()
    set_job(engine, job_id, state=state, claimed_by="dead", lease_until=clock.now + LEASE)

    meanwhile = print_job(job_id, here, lambda: 0.0)
    clock.now += LEASE
    due = order_due(here)
    done = print_job(job_id, here, lambda: 0.0)

    assert (meanwhile, list(due), done) == (None, [job_id], State.DONE)
    assert slips(library) == [f"{job_id}.pdf"]


def test_forgotten_order_is_given_again_once(wanted, here, clock, engine):
    """A slip whose order was lost is ordered by the sweep; two sweeps in a row order it once."""
    job_id = wanted()

    early = order_due(here)
    clock.now += NEGLECTED
    first, second = order_due(here), order_due(here)

    assert (list(early), list(first), list(second)) == ([], [job_id], [])


def test_a_worker_that_lost_its_lease_keeps_its_hands_off(wanted, here, engine, clock, library):
    """Between claim and sending another worker took over: the first one sends nothing."""
    job_id = wanted()
    original = here.publish.publish_outbox

    def taken_over(entries):
        set_job(engine, job_id, claimed_by="another")
        return original(entries)

    here.publish.publish_outbox = taken_over

    assert print_job(job_id, here, lambda: 0.0) is None
    assert slips(library) == []
