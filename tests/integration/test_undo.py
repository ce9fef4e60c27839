# SPDX-License-Identifier: Apache-2.0
"""Undo on both databases: status, loan, patron link and slip within the window; the status only minutes_later it."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from schemas.circulation_events import ActionOutcome, RequestCompleted, UndoRequested
from schemas.events import Override
from schemas.models import Item, Loan, PrintJob, Request, RequestEvent, UndoPatronLink
from schemas.print_jobs import PrintState
from schemas.request_status import RequestStatus
from tasks.circulation.handler import CIRCULATION_HANDLER
from tasks.events.policy import LibraryPolicy
from tasks.returns.handler import RETURN_HANDLER
from tasks.returns.undo_handler import UNDO_HANDLER
from tests.task_context import POLICY


@pytest.fixture
def undo(handle, library):
    """Undo an event, or a request's last Return; return the reply."""

    def run(undoes=None, **fields):
        policy, now = fields.pop("policy", POLICY), fields.pop("now", None)
        payload = library.event(UndoRequested, undoes=undoes, **fields)
        [reply] = handle(UNDO_HANDLER, payload, policy=policy, now=now)
        return reply

    return run


def minutes_later(minutes):
    """The time in `minutes`."""
    return datetime.now(UTC) + timedelta(minutes=minutes)


def test_undo_within_the_window_restores_everything(library, handle, undo, rows):
    """Status, item, loan and both patron links are as before; the slip is void; the history has both entries."""
    _, [barcode] = library.request()
    before = rows(Request), rows(Item), rows(Loan)
    [returned] = handle(RETURN_HANDLER, library.scan(barcode))

    reply = undo(returned.event_id, station="main-desk-2")

    unlike = ("updated_at",)
    again = rows(Request), rows(Item), rows(Loan)
    for old, new in zip(before, again, strict=True):
        assert [{k: v for k, v in row._mapping.items() if k not in unlike} for row in new] == [
            {k: v for k, v in row._mapping.items() if k not in unlike} for row in old
        ]
    assert rows(UndoPatronLink) == []
    [job] = rows(PrintJob)
    assert (job.state, job.voided_at is not None) == (PrintState.CANCELLED, True)
    assert [line.kind for line in rows(RequestEvent)] == ["returned", "undone"]
    assert rows(RequestEvent)[-1].station == "main-desk-2"
    assert (reply.outcome, reply.reason) == (ActionOutcome.DONE, "undone")
    assert (reply.status_before, reply.status_after) == (RequestStatus.RETURNED_TO_PARTNER, RequestStatus.LOANED)
    assert "Loaned to patron" in reply.message
    assert reply.warnings == ()


def test_undo_by_request_reverts_its_last_return(library, handle, undo, rows):
    """Undo by the request's identifier reverts its last Return that is not undone."""
    external_id, _ = library.request(RequestStatus.RECEIVED)
    handle(RETURN_HANDLER, library.return_requested(external_id))

    reply = undo(request=external_id)

    assert reply.outcome == "done"
    assert rows(Request)[0].status is RequestStatus.RECEIVED
    assert rows(Request)[0].returned_at is None


def test_undo_after_printing_warns_of_the_slip(library, handle, undo, engine):
    """When the slip was printed, staff are warned to take it out of the item."""
    _, [barcode] = library.request()
    [returned] = handle(RETURN_HANDLER, library.scan(barcode))
    with engine.begin() as connection:
        connection.execute(update(PrintJob).values(state=PrintState.DONE))

    reply = undo(returned.event_id)

    assert any("throw it away" in warning for warning in reply.warnings)


def test_second_undo_returns_already_done(library, handle, undo, rows):
    """A second undo of the same Return writes nothing."""
    _, [barcode] = library.request()
    [returned] = handle(RETURN_HANDLER, library.scan(barcode))
    undo(returned.event_id)

    again = undo(returned.event_id)

    assert (again.outcome, again.reason) == ("already_done", "already_undone")
    assert len(rows(RequestEvent)) == 2


def test_redelivered_undo_returns_the_stored_reply(library, handle, rows):
    """A redelivered undo gets its stored reply, byte for byte."""
    _, [barcode] = library.request()
    [returned] = handle(RETURN_HANDLER, library.scan(barcode))
    payload = library.event(UndoRequested, undoes=returned.event_id)

    first, second = handle(UNDO_HANDLER, payload), handle(UNDO_HANDLER, payload)

    assert first == second
    assert len(rows(RequestEvent)) == 2


def test_item_can_be_returned_again_after_an_undo(library, handle, undo, rows):
    """A new scan after the undo returns the item, with a new print job."""
    _, [barcode] = library.request()
    [returned] = handle(RETURN_HANDLER, library.scan(barcode))
    undo(returned.event_id)

    [again] = handle(RETURN_HANDLER, library.scan(barcode))

    assert (again.outcome, again.discharged) == ("returned", True)
    assert [job.state for job in rows(PrintJob)].count(PrintState.REQUESTED) == 1


def test_undo_after_the_window_needs_a_reason(library, handle, undo, rows):
    """Without a reason it is refused; with one only the status is restored, and the loan stays discharged."""
    _, [barcode] = library.request()
    [returned] = handle(RETURN_HANDLER, library.scan(barcode))

    refused = undo(returned.event_id, now=minutes_later(11))
    done = undo(returned.event_id, now=minutes_later(11), reason="wrong book")

    assert (refused.outcome, refused.reason) == ("refused", "reason_needed")
    assert refused.next_step
    assert (done.outcome, done.reason) == ("done", "undone_status_only")
    assert rows(Request)[0].status is RequestStatus.LOANED
    assert rows(Loan)[0].discharged_at is not None
    assert (rows(Loan)[0].patron_id, rows(Request)[0].patron_id) == (None, None)
    assert rows(RequestEvent)[-1].note == "wrong book"


def test_undo_after_the_partner_confirmed_is_refused(library, handle, undo, rows):
    """Once the lender has confirmed, a Return is final, whatever the reason is."""
    external_id, [barcode] = library.request()
    [returned] = handle(RETURN_HANDLER, library.scan(barcode))
    handle(CIRCULATION_HANDLER, library.event(RequestCompleted, request=external_id))

    reply = undo(returned.event_id, reason="please")

    assert (reply.outcome, reply.reason) == ("refused", "completed")
    assert rows(Request)[0].status is RequestStatus.COMPLETED


def test_undo_is_refused_before_a_later_return_is_undone(library, handle, undo, rows):
    """The check-in of the first of two items is not undone before the Return of the last."""
    _, [one, two] = library.request(items=2)
    [first] = handle(RETURN_HANDLER, library.scan(one))
    [last] = handle(RETURN_HANDLER, library.scan(two))

    refused = undo(first.event_id)
    undone = [undo(last.event_id), undo(first.event_id)]

    assert refused.reason == "changed_since"
    assert [reply.outcome for reply in undone] == ["done", "done"]
    assert [item.returned_at for item in rows(Item)] == [None, None]
    assert [loan.discharged_at for loan in rows(Loan)] == [None, None]


def test_undo_restores_a_claim(library, handle, undo, rows):
    """An undone Return that resolved a claim leaves the loan claimed returned, as before."""
    external_id, _ = library.request(loan={"claimed_returned": True})
    [returned] = handle(RETURN_HANDLER, library.return_requested(external_id, resolution="found_by_library"))

    undo(returned.event_id)

    assert rows(Loan)[0].claimed_returned


def test_undo_restores_the_lost_status(library, handle, undo, rows):
    """An undone override restores the lost status; the fee stays flagged for review."""
    external_id, _ = library.request(RequestStatus.LOST)
    override = Override(reason="found", supervisor="A. Chief")
    [returned] = handle(RETURN_HANDLER, library.return_requested(external_id, override=override))

    undo(returned.event_id)

    assert rows(Request)[0].status is RequestStatus.LOST
    assert rows(Loan)[0].fee_open


@pytest.mark.parametrize("undoes", [uuid4(), UUID(int=7)])
def test_undo_without_a_return_is_refused(undo, undoes):
    """An event that returned nothing, and an unknown request, are refused with the next step."""
    by_event, by_request = undo(undoes), undo(request="BR-NONE")

    for reply in (by_event, by_request):
        assert (reply.outcome, reply.reason) == ("refused", "nothing_to_undo")
        assert reply.next_step


def test_undo_of_a_loaned_request_is_refused(library, undo):
    """A request on loan has no Return that could be undone."""
    external_id, _ = library.request()

    assert undo(request=external_id).reason == "nothing_to_undo"


def test_undo_window_of_zero_disables_undo(library, handle, undo, rows):
    """With a window of zero no patron link is stored, and an undo is refused."""
    off = LibraryPolicy(new_id=POLICY.new_id, undo_window=timedelta(0))
    _, [barcode] = library.request()
    [returned] = handle(RETURN_HANDLER, library.scan(barcode), policy=off)

    assert rows(UndoPatronLink) == []
    assert undo(returned.event_id, policy=off, reason="please").reason == "undo_off"
