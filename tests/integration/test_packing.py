# SPDX-License-Identifier: Apache-2.0
"""At packing slip and item are scanned together; and a desk can ask for another slip. On both databases."""

import pytest
from sqlalchemy import select, update

from schemas.circulation_events import ReprintRequested, SlipSeen
from schemas.models import OutboxEntry, PrintJob, RequestEvent
from schemas.print_jobs import PrintState as State
from tasks.printing.handler import print_job
from tasks.printing.station_handler import SLIP_HANDLER


def job(engine, job_id):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob).where(PrintJob.id == job_id)).one()


def set_job(engine, job_id, **columns):
    with engine.begin() as connection:
        connection.execute(update(PrintJob).where(PrintJob.id == job_id).values(**columns))


def history(engine):
    with engine.connect() as connection:
        return connection.execute(
            select(RequestEvent.kind, RequestEvent.station).where(RequestEvent.kind.like("slip_%"))
        ).all()


@pytest.fixture
def printed(create_print_job, context, engine):
    """A Return whose slip came out; gives its print job."""

    def make():
        job_id = create_print_job()
        assert print_job(job_id, context, lambda: 0.0) is State.DONE
        return job(engine, job_id)

    return make


@pytest.fixture
def pack(handle, library):
    """Scan a slip's code and an item's barcode; give the reply."""

    def ask(slip, barcode):
        [reply] = handle(SLIP_HANDLER, library.event(SlipSeen, slip=slip, barcode=barcode))
        return reply

    return ask


@pytest.fixture
def ask_reprint(handle, library):
    """Ask for another slip of a Return; give the reply."""

    def ask(event_id):
        [reply] = handle(SLIP_HANDLER, library.event(ReprintRequested, reprints=event_id, reason="torn"))
        return reply

    return ask


def test_slip_and_item_belong_together(printed, pack, engine):
    """The slip is confirmed, with who saw it; scanned again it is known already."""
    slip = printed()

    first, second = (pack(slip.id, slip.content["barcode"]) for _ in range(2))

    assert (first.outcome, first.reason) == ("done", "confirmed")
    assert first.message == "Slip and item belong together: to Riverside University Library"
    assert (second.outcome, second.reason) == ("already_done", "already_confirmed")
    assert job(engine, slip.id).state is State.CONFIRMED
    assert history(engine) == [("slip_confirmed", "main-desk-1")]


def test_a_wrong_slip_in_the_book_is_refused(printed, pack, engine):
    """The slip of another item: refused, with both named, and nothing is confirmed."""
    slip, other = printed(), printed()

    reply = pack(slip.id, other.content["barcode"])

    assert (reply.outcome, reply.reason) == ("refused", "wrong_item")
    assert reply.message.startswith("WRONG SLIP: it belongs to ")
    assert other.content["barcode"] in reply.message
    assert "Take the slip out" in reply.next_step
    assert {job(engine, slip.id).state, job(engine, other.id).state} == {State.DONE}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"state": State.CANCELLED}, "cancelled_slip"),
        ({"state": State.REQUESTED}, "not_sent"),
        ({"state": State.SENDING}, "not_sent"),
        ({"state": State.EXPIRED}, "not_sent"),
    ],
)
def test_what_must_not_go_with_the_book(printed, pack, engine, columns, reason):
    """A slip that was given up, or is not known as sent, is not confirmed."""
    slip = printed()
    set_job(engine, slip.id, **columns)

    assert pack(slip.id, slip.content["barcode"]).reason == reason
    assert job(engine, slip.id).state is columns["state"]


def test_the_slip_of_an_undone_return_is_thrown_away(printed, pack, engine, context):
    """The item stays here: its old slip is refused."""
    slip = printed()
    set_job(engine, slip.id, voided_at=context.now())

    assert pack(slip.id, slip.content["barcode"]).reason == "void_slip"


@pytest.mark.parametrize("state", [State.ACCEPTED, State.UNKNOWN])
def test_what_was_in_doubt_is_confirmed(printed, pack, engine, state):
    """Nobody knew whether it came out: here it is."""
    slip = printed()
    set_job(engine, slip.id, state=state, last_error="its worker died while sending")

    assert pack(slip.id, slip.content["barcode"]).outcome == "done"
    assert (job(engine, slip.id).state, job(engine, slip.id).last_error) == (State.CONFIRMED, None)


def test_a_second_slip_of_the_same_item_is_found(printed, pack, ask_reprint, context, engine):
    """A copy was printed and packed: when the first slip turns up in another book, it is refused."""
    slip = printed()
    ask_reprint(slip.event_id)
    with engine.connect() as connection:
        copy = connection.execute(select(PrintJob).where(PrintJob.copy_number == 2)).one()
    print_job(copy.id, context, lambda: 0.0)

    assert pack(copy.id, slip.content["barcode"]).outcome == "done"
    assert pack(slip.id, slip.content["barcode"]).reason == "second_slip"


def test_a_code_that_is_no_slip_of_ours(pack, library):
    """Nobody's slip: refused."""
    assert pack("01975d2e-7c00-7000-8000-000000000107", "31000000170").reason == "unknown_slip"


def test_a_desk_gets_a_copy(printed, ask_reprint, context, engine, library):
    """COPY 2, ordered in the same commit; the history says which station asked, and why."""
    slip = printed()

    reply = ask_reprint(slip.event_id)

    assert (reply.outcome, reply.message) == ("done", "Copy 2 of the slip is on its way")
    with engine.connect() as connection:
        copy = connection.execute(select(PrintJob).where(PrintJob.copy_number == 2)).one()
        orders = connection.execute(select(OutboxEntry.body).where(OutboxEntry.queue == "printing.main")).scalars()
        assert any(str(copy.id) in body for body in orders)
    assert (copy.reason, copy.actor, copy.content["copy_number"]) == ("torn", "station main-desk-1", 2)
    assert print_job(copy.id, context, lambda: 0.0) is State.DONE
    assert history(engine) == [("slip_reprinted", "main-desk-1")]


def test_reprint_of_a_slip_in_doubt_cancels_it_with_the_copy_as_reason(printed, ask_reprint, engine):
    """A station's copy replaces a slip with an unknown result: it is cancelled, and its error names the copy."""
    slip = printed()
    set_job(engine, slip.id, state=State.UNKNOWN, last_error="its worker died while sending")

    assert ask_reprint(slip.event_id).outcome == "done"
    replaced = job(engine, slip.id)
    assert (replaced.state, replaced.next_attempt_at) == (State.CANCELLED, None)
    assert replaced.last_error == "copy 2 was ordered in its place"


def test_no_copy_while_the_first_can_still_come_out(create_print_job, ask_reprint, engine):
    """The slip waits for its printer: another one would be a second one."""
    slip = job(engine, create_print_job())

    assert (ask_reprint(slip.event_id).reason, len(history(engine))) == ("not_sent", 0)


def test_a_return_without_a_slip_has_no_copy(ask_reprint):
    """Nothing to print again."""
    assert ask_reprint("01975d2e-7c00-7000-8000-000000000107").reason == "no_slip"


def test_asked_twice_by_the_network_it_is_one_copy(printed, handle, library, engine):
    """The same event delivered again gets the same answer, and no second copy."""
    slip = printed()
    event = library.event(ReprintRequested, reprints=slip.event_id, reason="torn")

    [first], [second] = handle(SLIP_HANDLER, event), handle(SLIP_HANDLER, event)

    assert first == second
    with engine.connect() as connection:
        assert len(connection.execute(select(PrintJob.id)).all()) == 2
