# SPDX-License-Identifier: Apache-2.0
"""Packing on both databases: slip and item are scanned together, and a station can request another slip."""

from uuid import UUID

import pytest
from sqlalchemy import delete, select, update

from schemas.circulation_events import ReprintRequested, SlipSeen
from schemas.models import OutboxEntry, PrintAttempt, PrintJob, RequestEvent
from schemas.print_jobs import PrintState as State
from schemas.slip_codes import parse_slip_code, short_code, slip_code
from tasks.printing.handler import print_job
from tasks.printing.station_handler import SLIP_HANDLER


def job(engine, job_id):
    """The row of a print job."""
    with engine.connect() as connection:
        return connection.execute(select(PrintJob).where(PrintJob.id == job_id)).one()


def set_job(engine, job_id, **columns):
    with engine.begin() as connection:
        connection.execute(update(PrintJob).where(PrintJob.id == job_id).values(**columns))


def history(engine):
    """The history entries about slips: kind and station."""
    with engine.connect() as connection:
        return connection.execute(
            select(RequestEvent.kind, RequestEvent.station).where(RequestEvent.kind.like("slip_%"))
        ).all()


@pytest.fixture
def printed_job(create_print_job, context, engine):
    """Return an item whose slip was printed; return its print job."""

    def make():
        job_id = create_print_job()
        assert print_job(job_id, context, lambda: 0.0) is State.DONE
        return job(engine, job_id)

    return make


@pytest.fixture
def remove_attempts(engine):
    """Remove all attempts, so that the id of a print job can be changed."""

    def remove():
        with engine.begin() as connection:
            connection.execute(delete(PrintAttempt))

    return remove


@pytest.fixture
def pack(handle, library):
    """Scan a slip's code and an item's barcode; return the reply."""

    def ask(slip, barcode):
        [reply] = handle(SLIP_HANDLER, library.event(SlipSeen, slip=slip, barcode=barcode))
        return reply

    return ask


@pytest.fixture
def request_reprint(handle, library):
    """Request another slip of a Return; return the reply."""

    def ask(event_id):
        [reply] = handle(SLIP_HANDLER, library.event(ReprintRequested, reprints=event_id, reason="torn"))
        return reply

    return ask


def test_packing_confirms_the_slip_of_the_item(printed_job, pack, engine):
    """The slip is confirmed, with its station in the history; a second scan returns already done."""
    slip = printed_job()

    first, second = (pack(slip.id, slip.content["barcode"]) for _ in range(2))

    assert (first.outcome, first.reason) == ("done", "confirmed")
    assert first.message == "Slip and item belong together: to Riverside University Library"
    assert (second.outcome, second.reason) == ("already_done", "already_confirmed")
    assert job(engine, slip.id).state is State.CONFIRMED
    assert history(engine) == [("slip_confirmed", "main-desk-1")]


def test_slip_of_another_item_is_refused(printed_job, pack, engine):
    """The slip of another item is refused with both named, and neither is confirmed."""
    slip, other = printed_job(), printed_job()

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
def test_slip_that_was_not_sent_is_not_confirmed(printed_job, pack, engine, columns, reason):
    """A slip that was cancelled, or is not recorded as sent, is not confirmed."""
    slip = printed_job()
    set_job(engine, slip.id, **columns)

    assert pack(slip.id, slip.content["barcode"]).reason == reason
    assert job(engine, slip.id).state is columns["state"]


def test_slip_of_an_undone_return_is_refused(printed_job, pack, engine, context):
    """The item stays at the library, so its old slip is refused."""
    slip = printed_job()
    set_job(engine, slip.id, voided_at=context.now())

    assert pack(slip.id, slip.content["barcode"]).reason == "void_slip"


@pytest.mark.parametrize("state", [State.ACCEPTED, State.UNKNOWN])
def test_packing_confirms_a_slip_in_doubt(printed_job, pack, engine, state):
    """Packing proves that a slip with an unknown result was printed."""
    slip = printed_job()
    set_job(engine, slip.id, state=state, last_error="its worker died while sending")

    assert pack(slip.id, slip.content["barcode"]).outcome == "done"
    assert (job(engine, slip.id).state, job(engine, slip.id).last_error) == (State.CONFIRMED, None)


def test_first_slip_is_refused_after_its_copy_was_packed(printed_job, pack, request_reprint, context, engine):
    """When the first slip is scanned after its copy was packed, it is refused."""
    slip = printed_job()
    request_reprint(slip.event_id)
    with engine.connect() as connection:
        copy = connection.execute(select(PrintJob).where(PrintJob.copy_number == 2)).one()
    print_job(copy.id, context, lambda: 0.0)

    assert pack(copy.id, slip.content["barcode"]).outcome == "done"
    assert pack(slip.id, slip.content["barcode"]).reason == "second_slip"


def test_unknown_slip_is_refused(pack, library):
    """A code of no print job is refused."""
    assert pack("01975d2e-7c00-7000-8000-000000000107", "31000000170").reason == "unknown_slip"


def short(slip_id):
    """The id that a station makes of the short form on a slip."""
    found = parse_slip_code(short_code(slip_id))
    assert found != slip_id
    return found


def test_short_form_of_a_code_confirms_the_slip(printed_job, pack, engine):
    """A station sends the last twelve digits; the slip with these digits is confirmed."""
    slip, _ = printed_job(), printed_job()

    assert pack(short(slip.id), slip.content["barcode"]).outcome == "done"
    assert job(engine, slip.id).state is State.CONFIRMED


def test_short_form_of_no_slip_is_refused(printed_job, pack):
    """Digits of no print job are an unknown slip, as an unknown code is."""
    slip = printed_job()

    assert pack(UUID(int=17), slip.content["barcode"]).reason == "unknown_slip"


def test_short_form_of_two_slips_means_the_one_of_the_item(printed_job, pack, engine, remove_attempts):
    """Of two slips with the same digits, the item in hand has one; with another item both are named, and none changes."""
    slip, other, third = printed_job(), printed_job(), printed_job()
    remove_attempts()
    set_job(engine, other.id, id=(twin_id := UUID(int=other.id.int >> 48 << 48 | slip.id.int & (1 << 48) - 1)))

    refused = pack(short(slip.id), third.content["barcode"])
    done = pack(short(slip.id), slip.content["barcode"])

    assert (refused.outcome, refused.reason) == ("refused", "several_slips")
    assert slip_code(slip.id) in refused.message
    assert slip_code(twin_id) in refused.message
    assert done.outcome == "done"
    assert (job(engine, slip.id).state, job(engine, twin_id).state) == (State.CONFIRMED, State.DONE)


def test_void_slip_of_an_item_that_was_returned_again_names_the_new_slip(printed_job, pack, engine, context):
    """The item leaves after all: the refusal of its old slip names the slip to pack it with."""
    old, new = printed_job(), printed_job()
    set_job(engine, old.id, voided_at=context.now())
    set_job(engine, new.id, item_id=old.item_id)

    reply = pack(old.id, old.content["barcode"])

    assert (reply.outcome, reply.reason) == ("refused", "void_slip")
    assert "returned again" in reply.message
    assert short_code(new.id) in reply.message
    assert short_code(new.id) in reply.next_step
    set_job(engine, new.id, voided_at=context.now())
    assert "the item stays here" in pack(old.id, old.content["barcode"]).message


def test_station_requests_a_copy(printed_job, request_reprint, context, engine, library):
    """Copy 2 is enqueued in the same commit; the history names station and reason."""
    slip = printed_job()

    reply = request_reprint(slip.event_id)

    assert (reply.outcome, reply.message) == ("done", "Copy 2 of the slip is on its way")
    with engine.connect() as connection:
        copy = connection.execute(select(PrintJob).where(PrintJob.copy_number == 2)).one()
        orders = connection.execute(select(OutboxEntry.body).where(OutboxEntry.queue == "printing.main")).scalars()
        assert any(str(copy.id) in body for body in orders)
    assert (copy.reason, copy.actor, copy.content["copy_number"]) == ("torn", "station main-desk-1", 2)
    assert print_job(copy.id, context, lambda: 0.0) is State.DONE
    assert history(engine) == [("slip_reprinted", "main-desk-1")]


def test_reprint_of_a_slip_in_doubt_cancels_it_with_the_copy_as_reason(printed_job, request_reprint, engine):
    """A station's copy replaces a slip with an unknown result: it is cancelled, and its error names the copy."""
    slip = printed_job()
    set_job(engine, slip.id, state=State.UNKNOWN, last_error="its worker died while sending")

    assert request_reprint(slip.event_id).outcome == "done"
    replaced = job(engine, slip.id)
    assert (replaced.state, replaced.next_attempt_at) == (State.CANCELLED, None)
    assert replaced.last_error == "copy 2 was ordered in its place"


def test_copy_is_refused_while_the_first_slip_waits(create_print_job, request_reprint, engine):
    """While the slip waits for its printer, a copy would be a second slip."""
    slip = job(engine, create_print_job())

    assert (request_reprint(slip.event_id).reason, len(history(engine))) == ("not_sent", 0)


def test_copy_without_a_first_slip_is_refused(request_reprint):
    """There is nothing to print again."""
    assert request_reprint("01975d2e-7c00-7000-8000-000000000107").reason == "no_slip"


def test_redelivered_reprint_request_creates_one_copy(printed_job, handle, library, engine):
    """The redelivered event gets the same reply, and no second copy."""
    slip = printed_job()
    event = library.event(ReprintRequested, reprints=slip.event_id, reason="torn")

    [first], [second] = handle(SLIP_HANDLER, event), handle(SLIP_HANDLER, event)

    assert first == second
    with engine.connect() as connection:
        assert len(connection.execute(select(PrintJob.id)).all()) == 2
