# SPDX-License-Identifier: Apache-2.0
"""Circulation around the Return on both databases: receive, loan, discharge, return, complete."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete

from schemas.circulation_events import ItemLoaned, ItemsReceived, LoanDischarged, ReceivedItem, RequestCompleted
from schemas.models import Item, ItemBarcode, Loan, Request, RequestEvent, UndoPatronLink
from schemas.request_status import RequestStatus
from tasks.circulation.handler import CIRCULATION_HANDLER
from tasks.returns.handler import RETURN_HANDLER

SENT = RequestStatus.REQUEST_SENT


@pytest.fixture
def send_event(handle, library):
    """Send one circulation event; return the reply."""

    def run(kind, **fields):
        [reply] = handle(CIRCULATION_HANDLER, library.event(kind, **fields))
        return reply

    return run


def sent_request(library):
    """A request that was sent to its partner, with its patron and without items; return its identifier."""
    external_id, _ = library.request(SENT)
    with library.engine.begin() as connection:
        connection.execute(delete(ItemBarcode))
        connection.execute(delete(Item))
    return external_id


def parcel(*barcodes, **fields):
    """Received items with these barcodes."""
    return tuple(ReceivedItem(barcode=barcode, **fields) for barcode in barcodes)


def test_full_cycle_moves_the_request_through_each_status(library, send_event, handle, rows):
    """Received, loaned, returned, completed: each step changes the status and is in the history."""
    request = sent_request(library)

    steps = [
        send_event(ItemsReceived, request=request, items=parcel("0042")),
        send_event(ItemLoaned, barcode="0042", due_at=library.now + timedelta(days=28)),
        *handle(RETURN_HANDLER, library.scan("0042")),
        send_event(RequestCompleted, request=request),
    ]

    assert [str(step.status_after) for step in steps] == ["received", "loaned", "returned_to_partner", "completed"]
    assert [step.outcome.value for step in steps] == ["done", "done", "returned", "done"]
    assert [line.kind for line in rows(RequestEvent)] == ["received", "loaned", "returned", "completed"]
    assert rows(Loan)[0].discharged_at is not None
    assert (rows(Request)[0].patron_id, rows(Loan)[0].patron_id) == (None, None)


def test_receiving_creates_items_with_their_barcodes(library, send_event, rows):
    """Items arrive with strap and lender's barcode, a third one later; the same parcel twice changes nothing."""
    request = sent_request(library)
    items = (ReceivedItem(barcode="ILL-1", temporary=True, other_barcodes=("0042",)), ReceivedItem(barcode="0043"))

    first = send_event(ItemsReceived, request=request, items=items)
    again = send_event(ItemsReceived, request=request, items=items)
    more = send_event(ItemsReceived, request=request, items=parcel("0044"))

    assert [reply.outcome.value for reply in (first, again, more)] == ["done", "already_done", "done"]
    assert [(code.barcode, code.temporary) for code in rows(ItemBarcode)] == [
        ("ILL-1", True), ("0042", False), ("0043", False), ("0044", False)
    ]  # fmt: skip
    assert [item.position for item in rows(Item)] == [1, 2, 3]
    assert more.items.of == 3


def test_item_for_library_use_is_not_loaned(library, send_event):
    """An item that the lender permits in the library only is received as such, and a loan of it is refused."""
    request = sent_request(library)

    received = send_event(ItemsReceived, request=request, items=parcel("0042"), for_loan=False)
    lent = send_event(ItemLoaned, barcode="0042")

    assert received.status_after is RequestStatus.RECEIVED_NOT_FOR_LOAN
    assert (lent.outcome.value, lent.reason) == ("refused", "not_for_loan")
    assert lent.next_step


def test_return_address_of_the_parcel_is_stored(library, send_event, rows):
    """The lender's return address for this item is stored with the request."""
    address = ("Riverside Annex", "9 River Road")

    send_event(ItemsReceived, request=sent_request(library), items=parcel("0042"), return_address=address)

    assert rows(Request)[0].return_address == list(address)


def test_barcode_of_an_open_request_is_refused(library, send_event, rows):
    """A barcode of another open request's item is refused; that of a closed request's item can be reused."""
    library.request(barcodes=[["ILL-1"]])
    library.request(RequestStatus.COMPLETED, barcodes=[["ILL-2"]])
    request, _ = library.request(SENT, barcodes=[["old"]])

    in_use = send_event(ItemsReceived, request=request, items=parcel("ILL-1", temporary=True))
    free = send_event(ItemsReceived, request=request, items=parcel("ILL-2", temporary=True))

    assert (in_use.reason, "ILL-1" in in_use.message) == ("barcode_in_use", True)
    assert free.outcome.value == "done"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(RequestStatus.COMPLETED, "closed"), (RequestStatus.EXPIRED, "closed"), (RequestStatus.LOST, "lost")],
)
def test_parcel_for_a_closed_request_is_refused(library, send_event, rows, status, reason):
    """A parcel for a closed or lost request is refused with the next step, and nothing is written."""
    request, _ = library.request(status)

    reply = send_event(ItemsReceived, request=request, items=parcel("0099"))

    assert (reply.outcome.value, reply.reason) == ("refused", reason)
    assert reply.next_step
    assert rows(RequestEvent) == []


def test_loan_belongs_to_the_patron_of_the_request(library, send_event, rows):
    """The loan begins at the scan's time, with its due date, and belongs to the request's patron."""
    _, [barcode] = library.request(RequestStatus.RECEIVED)
    due = library.now + timedelta(days=28)

    reply = send_event(ItemLoaned, barcode=barcode, due_at=due)

    [loan] = rows(Loan)
    assert reply.outcome.value == "done"
    assert loan.patron_id == rows(Request)[0].patron_id
    assert (loan.loaned_at, loan.due_at) == (library.now, due)
    assert "Test Patron" not in reply.model_dump_json()


def test_second_loan_returns_already_done(library, send_event, rows):
    """A second loan of the same item writes nothing."""
    _, [barcode] = library.request()

    reply = send_event(ItemLoaned, barcode=barcode)

    assert reply.outcome.value == "already_done"
    assert len(rows(Loan)) == 1


@pytest.mark.parametrize("kind", [ItemLoaned, LoanDischarged])
@pytest.mark.parametrize(
    ("barcode", "reason"),
    [("NO-SUCH", "unknown_barcode"), ("P000001", "patron_card"), ("BR-00001", "external_id_scanned")],
)
def test_scan_of_another_code_is_refused(library, send_event, kind, barcode, reason):
    """An unknown barcode, a patron card and a request's identifier are refused; the card is not repeated."""
    library.request()

    reply = send_event(kind, barcode=barcode)

    assert (reply.outcome.value, reply.reason) == ("refused", reason)
    assert reply.next_step
    assert (barcode in reply.model_dump_json()) is (reason != "patron_card")


def test_discharge_ends_the_loan_and_keeps_the_item(library, send_event, rows):
    """The loan ends at the scan's time, its link is severed, and the status is "Returned by patron"."""
    _, [barcode] = library.request()
    at = library.now - timedelta(hours=2)

    reply = send_event(LoanDischarged, barcode=barcode, at=at)

    assert reply.status_after is RequestStatus.RETURNED_BY_PATRON
    assert (rows(Loan)[0].discharged_at, rows(Loan)[0].patron_id) == (at, None)
    assert rows(UndoPatronLink) == []
    assert send_event(LoanDischarged, barcode=barcode).outcome.value == "already_done"


def test_backdated_discharge_ends_the_loan_at_that_time(library, send_event, rows):
    """In drop-box mode the loan ends when the item came back; a date before the loan is refused."""
    _, [barcode] = library.request()

    refused = send_event(LoanDischarged, barcode=barcode, returned_at=library.now - timedelta(days=30))
    done = send_event(LoanDischarged, barcode=barcode, returned_at=library.now - timedelta(days=2))

    assert refused.reason == "backdate_before_loan"
    assert done.outcome.value == "done"
    assert rows(Loan)[0].discharged_at == library.now - timedelta(days=2)


def test_open_fee_keeps_the_patron_link(library, send_event, rows):
    """A discharge with an open fee keeps the loan's link to its patron until the fee is settled."""
    _, [barcode] = library.request(loan={"fee_open": True})

    send_event(LoanDischarged, barcode=barcode)

    assert rows(Loan)[0].patron_id is not None


def test_recalled_item_stays_recalled_after_its_discharge(library, send_event, handle):
    """A discharged item is still recalled, and its Return urgent."""
    _, [barcode] = library.request(RequestStatus.RECALLED)

    discharged = send_event(LoanDischarged, barcode=barcode)
    [returned] = handle(RETURN_HANDLER, library.scan(barcode))

    assert discharged.status_after is RequestStatus.RECALLED
    assert "return it to its lender" in discharged.next_step
    assert returned.urgent


def test_status_changes_with_the_last_discharged_item(library, send_event):
    """Of two items on loan, the first one's discharge leaves the request loaned."""
    _, [one, two] = library.request(items=2)

    assert send_event(LoanDischarged, barcode=one).status_after is RequestStatus.LOANED
    assert send_event(LoanDischarged, barcode=two).status_after is RequestStatus.RETURNED_BY_PATRON


@pytest.mark.parametrize(
    ("loan", "status", "reason"),
    [({"claimed_returned": True}, RequestStatus.LOANED, "claimed_returned"), ({}, RequestStatus.LOST, "lost")],
)
def test_claim_and_loss_are_not_discharged(library, send_event, rows, loan, status, reason):
    """A claim and a loss are not cleared by a discharge; the refusal contains the next step."""
    _, [barcode] = library.request(status, loan=loan)

    reply = send_event(LoanDischarged, barcode=barcode)

    assert (reply.reason, rows(Loan)[0].discharged_at) == (reason, None)
    assert reply.next_step


def test_partner_confirmation_before_the_scan_completes_the_request(library, send_event, handle, rows):
    """Confirmed before the scan: completed. The late scan ends the loan at its own time, and has no other effect."""
    external_id, [barcode] = library.request()
    scanned = library.now - timedelta(days=1)

    completed = send_event(RequestCompleted, request=external_id)
    [late] = handle(RETURN_HANDLER, library.scan(barcode, scanned_at=scanned))
    [again] = handle(RETURN_HANDLER, library.scan(barcode))

    assert (completed.outcome.value, completed.reason) == ("done", "completed_early")
    assert completed.warnings
    assert (late.outcome.value, late.reason, late.slip) == ("returned", "completed_before", None)
    assert (rows(Loan)[0].discharged_at, rows(Loan)[0].patron_id) == (scanned, None)
    assert (again.outcome.value, again.reason) == ("refused", "completed")
    assert rows(Request)[0].status is RequestStatus.COMPLETED
    assert rows(UndoPatronLink) == []


def test_second_completion_returns_already_done(library, send_event, rows):
    """The partner's confirmation sent twice writes one history entry."""
    external_id, _ = library.request(RequestStatus.RETURNED_TO_PARTNER, returned_at=datetime.now(UTC))

    replies = [send_event(RequestCompleted, request=external_id) for _ in range(2)]

    assert [reply.outcome.value for reply in replies] == ["done", "already_done"]
    assert len(rows(RequestEvent)) == 1


@pytest.mark.parametrize("status", [SENT, RequestStatus.CANCELED_BY_STAFF, RequestStatus.LOST])
def test_request_without_items_here_is_not_completed(library, send_event, rows, status):
    """A request with nothing to send back is not completed."""
    external_id, _ = library.request(status)

    reply = send_event(RequestCompleted, request=external_id)

    assert reply.outcome.value == "refused"
    assert reply.next_step
    assert rows(Request)[0].status is status


def test_return_event_in_a_circulation_task_is_quarantined(library, handle, rows):
    """An event sent to the wrong task is quarantined and refused."""
    _, [barcode] = library.request()

    [reply] = handle(CIRCULATION_HANDLER, library.scan(barcode))

    assert (reply.outcome.value, reply.reason) == ("refused", "unknown_version")
    assert rows(Request)[0].status is RequestStatus.LOANED
