# SPDX-License-Identifier: Apache-2.0
"""The rules of receive, loan, discharge and complete, from every status."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.replies import Destination
from schemas.request_status import RequestStatus as Status
from tasks.circulation.rules import AlreadyDone, Decision, Done, complete, discharge, in_use, lend, receive
from tasks.requests.model import ItemState, OpenLoan, Refused, RequestState

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LENDER = Destination(name="Riverside University Library", code="XX-RUL", delivery_code="RUL")
LOAN = OpenLoan(1, NOW - timedelta(days=14))

NOT_ARRIVED = [
    Status.CREATED, Status.READY_TO_BE_SENT, Status.REQUEST_SENT, Status.WILL_SUPPLY, Status.CONDITIONAL,
    Status.SHIPPED_PHYSICALLY,
]  # fmt: skip
ON_LOAN = [
    Status.LOANED, Status.RENEW_REQUESTED, Status.RENEWED, Status.RENEW_NOT_ACCEPTED, Status.MEDIATED_RENEWAL,
    Status.OVERDUE, Status.RECALLED,
]  # fmt: skip
IN_LIBRARY = [Status.RECEIVED, Status.RECEIVED_NOT_FOR_LOAN, Status.RETURNED_BY_PATRON, Status.DAMAGED]
LOST = [Status.LOST, Status.DECLARED_LOST]
CLOSED = [
    Status.RETURNED_TO_PARTNER, Status.COMPLETED, Status.CANCELED_BY_PARTNER, Status.CANCELED_BY_PATRON,
    Status.CANCELED_BY_STAFF, Status.EXPIRED, Status.REJECTED,
]  # fmt: skip
"""The statuses in five groups, written once more, independently of the sets in the code."""


def a_request(status: Status, *items: ItemState) -> RequestState:
    return RequestState(7, "BR-7", "A title", status, LENDER, items)


def an_item(item_id: int = 1, **fields: Any) -> ItemState:
    return ItemState(item_id, **fields)


def done(decision: Decision) -> Done:
    assert isinstance(decision, Done)
    return decision


def refused(decision: Decision, reason: str, action: str, status: Status) -> Refused:
    """The refusal, whose message names the action, the request and its status."""
    assert isinstance(decision, Refused)
    assert (decision.reason, decision.next_step != "") == (reason, True)
    assert decision.message == f"Not {action}: request BR-7 is “{status.label}”"
    return decision


def test_groups_hold_every_status_once():
    """The tables below leave no status out."""
    assert sorted([*NOT_ARRIVED, *ON_LOAN, *IN_LIBRARY, *LOST, *CLOSED]) == sorted(Status)


# Receive


@pytest.mark.parametrize("status", NOT_ARRIVED)
@pytest.mark.parametrize(("for_loan", "after"), [(True, Status.RECEIVED), (False, Status.RECEIVED_NOT_FOR_LOAN)])
def test_first_parcel_moves_the_request_to_received(status, for_loan, after):
    """A parcel for a request that awaits one sets the status for its use, and the reply names the next step."""
    decision = done(receive(a_request(status), new_items=1, for_loan=for_loan))

    assert (decision.reason, decision.status_after) == ("received", after)
    assert decision.message == "Received: request BR-7, 1 item: A title"
    assert (decision.next_step or "").startswith("Lend it" if for_loan else "For reading in the library only")


@pytest.mark.parametrize("status", [*ON_LOAN, *IN_LIBRARY])
def test_later_parcel_keeps_the_status(status):
    """Items that follow are counted with those that are known; the status stays, and there is no next step."""
    decision = done(receive(a_request(status, an_item()), new_items=2, for_loan=False))

    assert (decision.reason, decision.status_after, decision.next_step) == ("received", status, None)
    assert decision.message == "Received: request BR-7, 3 items: A title"


@pytest.mark.parametrize("status", [*NOT_ARRIVED, *ON_LOAN, *IN_LIBRARY])
def test_parcel_without_a_new_item_changes_nothing(status):
    """A parcel of known items was received before."""
    decision = receive(a_request(status, an_item()), new_items=0, for_loan=True)

    assert decision == AlreadyDone(f"Received before: request BR-7 is “{status.label}”")


@pytest.mark.parametrize("status", [*LOST, *CLOSED])
@pytest.mark.parametrize("new_items", [0, 1])
def test_parcel_for_a_closed_or_lost_request_is_refused(status, new_items):
    """The reason tells lost from closed, and the next step differs."""
    decision = receive(a_request(status), new_items=new_items, for_loan=True)

    next_step = refused(decision, "lost" if status in LOST else "closed", "received", status).next_step
    assert ("supervisor" in next_step) == (status in LOST)


# Loan


@pytest.mark.parametrize("status", [Status.RECEIVED, Status.RETURNED_BY_PATRON])
def test_item_in_the_library_is_loaned(status):
    """The request is then loaned to its patron."""
    decision = done(lend(a_request(status, an_item()), an_item(), has_patron=True))

    assert (decision.reason, decision.status_after) == ("loaned", Status.LOANED)
    assert decision.message == "Loaned: A title"
    assert decision.next_step is None


@pytest.mark.parametrize("status", ON_LOAN)
def test_second_item_of_a_loaned_request_keeps_the_status(status):
    """An overdue or recalled request stays so when another of its items is loaned."""
    decision = done(lend(a_request(status, an_item(), an_item(2, loan=LOAN)), an_item(), has_patron=True))

    assert decision.status_after is status


@pytest.mark.parametrize("status", list(Status))
def test_loan_of_a_loaned_item_changes_nothing(status):
    """From any status an item with an open loan was loaned before."""
    decision = lend(a_request(status, an_item(loan=LOAN)), an_item(loan=LOAN), has_patron=False)

    assert decision == AlreadyDone("On loan already: A title")


@pytest.mark.parametrize("status", [*LOST, *CLOSED])
def test_loan_from_a_closed_or_lost_request_is_refused(status):
    """Neither is lent, and the reason tells one from the other."""
    decision = lend(a_request(status, an_item()), an_item(), has_patron=True)

    refused(decision, "lost" if status in LOST else "closed", "lent", status)


def test_loan_of_a_returned_item_is_refused():
    """An item on its way to the lender is not lent, although its request waits for the other items."""
    item = an_item(returned_at=NOW)

    refused(lend(a_request(Status.LOANED, item, an_item(2)), item, has_patron=True), "closed", "lent", Status.LOANED)


@pytest.mark.parametrize("status", NOT_ARRIVED)
def test_loan_before_the_item_is_received_is_refused(status):
    """Staff receive the item first."""
    refused(lend(a_request(status, an_item()), an_item(), has_patron=True), "not_received", "lent", status)


@pytest.mark.parametrize("status", [Status.RECEIVED_NOT_FOR_LOAN, Status.DAMAGED])
def test_loan_of_a_damaged_or_library_only_item_is_refused(status):
    """The item stays in the library."""
    refused(lend(a_request(status, an_item()), an_item(), has_patron=True), "not_for_loan", "lent", status)


def test_loan_without_a_patron_is_refused():
    """A request whose link to the patron is severed cannot be lent."""
    decision = lend(a_request(Status.RETURNED_BY_PATRON, an_item()), an_item(), has_patron=False)

    assert isinstance(decision, Refused)
    assert decision.reason == "no_reader"
    assert decision.message == "Not lent: request BR-7 no longer names a patron"
    assert decision.next_step


# Discharge


@pytest.mark.parametrize("status", [status for status in ON_LOAN if status is not Status.RECALLED])
def test_discharge_of_the_last_loan_moves_the_request_to_returned_by_patron(status):
    """The item is back on the shelf of this library."""
    item = an_item(loan=LOAN)

    decision = done(discharge(a_request(status, item, an_item(2)), item))

    assert (decision.reason, decision.status_after) == ("discharged", Status.RETURNED_BY_PATRON)
    assert decision.message == "Discharged: A title"
    assert decision.next_step == "Put it on the shelf, or return it to its lender."


def test_discharge_of_one_of_two_loans_keeps_the_status():
    """The request stays loaned while another of its items is on loan."""
    item = an_item(loan=LOAN)

    decision = done(discharge(a_request(Status.OVERDUE, item, an_item(2, loan=LOAN)), item))

    assert decision.status_after is Status.OVERDUE


def test_discharge_of_a_recalled_item_keeps_the_recall():
    """The recall stays until the Return, and the next step is to return the item at once."""
    item = an_item(loan=LOAN)

    decision = done(discharge(a_request(Status.RECALLED, item), item))

    assert decision.status_after is Status.RECALLED
    assert decision.next_step == "It is recalled: return it to its lender at once."


@pytest.mark.parametrize("status", [*NOT_ARRIVED, *IN_LIBRARY, *CLOSED])
def test_discharge_from_a_status_without_a_loan_keeps_it(status):
    """A loan that is open in spite of the status ends; the status stays."""
    item = an_item(loan=LOAN)

    assert done(discharge(a_request(status, item), item)).status_after is status


@pytest.mark.parametrize("status", LOST)
def test_discharge_of_a_lost_item_is_refused(status):
    """A supervisor decides about a lost item."""
    item = an_item(loan=LOAN)

    assert "supervisor" in refused(discharge(a_request(status, item), item), "lost", "discharged", status).next_step


@pytest.mark.parametrize(
    ("loan", "reason", "words"),
    [
        (OpenLoan(1, NOW, other_patron=True), "loan_of_another_patron", "does not belong to request BR-7"),
        (OpenLoan(1, NOW, claimed_returned=True), "claimed_returned", "the patron of request BR-7 claims"),
        (OpenLoan(1, NOW, other_patron=True, claimed_returned=True), "loan_of_another_patron", "BR-7"),
    ],
)
def test_discharge_of_a_disputed_loan_is_refused(loan, reason, words):
    """A loan of another patron, or one that is claimed returned, needs a decision of staff."""
    item = an_item(loan=loan)

    decision = discharge(a_request(Status.LOANED, item), item)

    assert isinstance(decision, Refused)
    assert decision.reason == reason
    assert words in decision.message
    assert decision.message.startswith("Not discharged: ")
    assert decision.next_step


@pytest.mark.parametrize("status", CLOSED)
def test_discharge_of_a_closed_request_without_a_loan_changes_nothing(status):
    """Nothing is on loan, and the reply names the status."""
    decision = discharge(a_request(status, an_item()), an_item())

    assert decision == AlreadyDone(f"Not on loan: request BR-7 is “{status.label}”")


def test_discharge_of_a_returned_item_changes_nothing():
    """An item on its way to the lender is not on loan, although its request waits for the other items."""
    item = an_item(returned_at=NOW)

    decision = discharge(a_request(Status.LOANED, item, an_item(2)), item)

    assert decision == AlreadyDone("Not on loan: request BR-7 is “Loaned to patron”")


def test_second_discharge_changes_nothing():
    """The patron returned the item before."""
    decision = discharge(a_request(Status.RETURNED_BY_PATRON, an_item()), an_item())

    assert decision == AlreadyDone("Returned by patron before: A title")


@pytest.mark.parametrize("status", [s for s in Status if s not in {*CLOSED, Status.RETURNED_BY_PATRON}])
def test_discharge_without_a_loan_is_refused(status):
    """An item that is not on loan in an open request is refused with a next step."""
    decision = discharge(a_request(status, an_item()), an_item())

    assert isinstance(decision, Refused)
    assert (decision.reason, decision.message) == ("not_on_loan", "Not discharged: A title is not on loan")
    assert decision.next_step


# Complete


def test_confirmation_completes_a_returned_request():
    """The usual end: returned to the partner, then completed, without a warning."""
    decision = done(complete(a_request(Status.RETURNED_TO_PARTNER)))

    assert (decision.reason, decision.status_after) == ("completed", Status.COMPLETED)
    assert decision.message == "Completed: request BR-7"
    assert decision.warnings == ()


def test_second_confirmation_changes_nothing():
    """A completed request was completed before."""
    assert complete(a_request(Status.COMPLETED)) == AlreadyDone("Completed before: request BR-7")


@pytest.mark.parametrize("status", [*ON_LOAN, *IN_LIBRARY])
def test_confirmation_before_the_return_completes_with_a_warning(status):
    """The partner has the item before the Return's scan is processed; the reply states what the scan will do."""
    decision = done(complete(a_request(status)))

    assert (decision.reason, decision.status_after) == ("completed_early", Status.COMPLETED)
    assert decision.message == "Completed: request BR-7"
    assert len(decision.warnings) == 1


@pytest.mark.parametrize(
    "status", [*LOST, *(s for s in CLOSED if s not in {Status.RETURNED_TO_PARTNER, Status.COMPLETED})]
)
def test_confirmation_of_a_closed_or_lost_request_is_refused(status):
    """A canceled, expired, rejected or lost request is not completed."""
    refused(complete(a_request(status)), "lost" if status in LOST else "closed", "completed", status)


@pytest.mark.parametrize("status", NOT_ARRIVED)
def test_confirmation_before_anything_arrived_is_refused(status):
    """Nothing has come, so nothing can be back."""
    refused(complete(a_request(status)), "not_received", "completed", status)


# Barcodes of other requests


def test_barcodes_in_use_are_listed_in_order():
    """The refusal names each barcode of another open request."""
    decision = in_use({"ILL-2", "ILL-1"})

    assert decision.reason == "barcode_in_use"
    assert decision.message == "Not received: ILL-1, ILL-2 is on an item of another open request"
    assert decision.next_step
