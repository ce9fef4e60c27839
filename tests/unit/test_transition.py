# SPDX-License-Identifier: Apache-2.0
"""The rule of the Return: its outcome from every status, and its invariants for any request and command."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Override
from schemas.replies import Destination
from schemas.request_status import CLOSED, RequestStatus
from tasks.requests.model import ItemState, OpenLoan, Refused, RequestState
from tasks.returns.decision import AlreadyReturned, ReturnCommand, Returned
from tasks.returns.transition import TABLE, Action, decide

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LENDER = Destination(name="Riverside University Library", code="XX-RUL", delivery_code="RUL")
SUPERVISOR = Override(reason="found behind the shelf", supervisor="A. Chief")

EXPECTED = {
    RequestStatus.CREATED: ("refused", "not_sent"),
    RequestStatus.READY_TO_BE_SENT: ("refused", "not_sent"),
    RequestStatus.REQUEST_SENT: ("refused", "not_supplied"),
    RequestStatus.WILL_SUPPLY: ("refused", "not_supplied"),
    RequestStatus.CONDITIONAL: ("refused", "not_supplied"),
    RequestStatus.SHIPPED_PHYSICALLY: ("refused", "not_received"),
    RequestStatus.RECEIVED: ("returned", "never_loaned"),
    RequestStatus.RECEIVED_NOT_FOR_LOAN: ("returned", "never_loaned"),
    RequestStatus.LOANED: ("returned", "loaned"),
    RequestStatus.RENEW_REQUESTED: ("returned", "renewal_closed"),
    RequestStatus.RENEWED: ("returned", "loaned"),
    RequestStatus.RENEW_NOT_ACCEPTED: ("returned", "loaned"),
    RequestStatus.MEDIATED_RENEWAL: ("returned", "renewal_closed"),
    RequestStatus.OVERDUE: ("returned", "overdue"),
    RequestStatus.RECALLED: ("returned", "recalled"),
    RequestStatus.RETURNED_BY_PATRON: ("returned", "discharged_before"),
    RequestStatus.DAMAGED: ("returned", "damaged"),
    RequestStatus.LOST: ("refused", "lost"),
    RequestStatus.DECLARED_LOST: ("refused", "lost"),
    RequestStatus.RETURNED_TO_PARTNER: ("already_returned", ""),
    RequestStatus.COMPLETED: ("refused", "completed"),
    RequestStatus.CANCELED_BY_PARTNER: ("refused", "canceled"),
    RequestStatus.CANCELED_BY_PATRON: ("refused", "canceled"),
    RequestStatus.CANCELED_BY_STAFF: ("refused", "canceled"),
    RequestStatus.EXPIRED: ("refused", "expired"),
    RequestStatus.REJECTED: ("refused", "rejected"),
}
"""Outcome and reason of a Return from each status, written once more, independently of the table in the code."""


def a_request(status=RequestStatus.LOANED, *items, **fields):
    # After the lender's confirmation the loan has ended as well; another test has the late scan.
    loan = None if status is RequestStatus.COMPLETED else OpenLoan(1, NOW - timedelta(days=14))
    items = items or (ItemState(1, loan=loan),)
    return RequestState(7, "BR-7", "A title", status, LENDER, tuple(items), **fields)


def a_scan(item_id=1, **fields):
    return ReturnCommand(**{"occurred_at": NOW, "received_at": NOW, "item_id": item_id, **fields})


def from_request(**fields):
    return a_scan(None, **fields)


def kind(decision):
    return {Returned: "returned", AlreadyReturned: "already_returned", Refused: "refused"}[type(decision)]


def returned(request: RequestState, command: ReturnCommand) -> Returned:
    decision = decide(request, command)
    assert isinstance(decision, Returned)
    return decision


def refused(request: RequestState, command: ReturnCommand) -> Refused:
    decision = decide(request, command)
    assert isinstance(decision, Refused)
    return decision


@pytest.mark.parametrize("status", list(RequestStatus))
def test_scan_has_the_expected_outcome_from_every_status(status):
    """The scan of a request's one item has one outcome and one reason from each status."""
    decision = decide(a_request(status), a_scan())

    assert (kind(decision), getattr(decision, "reason", "")) == EXPECTED[status]


@pytest.mark.parametrize("status", [s for s, (outcome, _) in EXPECTED.items() if outcome == "refused"])
def test_refusal_names_request_status_and_next_step(status):
    """The reply names the lender where the item can be in hand."""
    decision = refused(a_request(status), a_scan())

    assert "BR-7" in decision.message
    assert status.label in decision.message
    assert decision.next_step
    in_hand = status in CLOSED or status in {
        RequestStatus.SHIPPED_PHYSICALLY, RequestStatus.LOST, RequestStatus.DECLARED_LOST,
    }  # fmt: skip
    assert decision.names_destination is in_hand


def test_only_a_recalled_item_is_urgent():
    """No other status marks the reply and the slip as urgent."""
    urgent = {s for s in RequestStatus if isinstance(d := decide(a_request(s), a_scan()), Returned) and d.urgent}

    assert urgent == {RequestStatus.RECALLED}


def test_row_has_no_field_without_effect():
    """A row that never refuses has no refusal's fields, and a row that only refuses is not urgent."""
    for row in TABLE.values():
        assert not row.urgent or row.action is Action.RETURN
        if row.action in {Action.RETURN, Action.REPEAT}:
            assert (row.in_hand, row.next_step) == (False, "")


@pytest.mark.parametrize("status", [RequestStatus.LOST, RequestStatus.DECLARED_LOST])
def test_override_returns_a_lost_item(status):
    """A supervisor's override returns the item under its own reason code, and flags the fee for review."""
    decision = decide(a_request(status), from_request(override=SUPERVISOR))

    assert isinstance(decision, Returned)
    assert decision.reason == "lost_overridden"
    assert decision.fee_review
    assert decision.status_after is RequestStatus.RETURNED_TO_PARTNER


@given(
    status=st.sampled_from([s for s, (outcome, _) in EXPECTED.items() if outcome == "refused" and s not in
                            {RequestStatus.LOST, RequestStatus.DECLARED_LOST}]),
    item_id=st.sampled_from([None, 1]),
    force=st.booleans(),
)  # fmt: skip
def test_override_leaves_other_refusals(status, item_id, force):
    """An override applies to lost items only."""
    command = a_scan(item_id, override=SUPERVISOR, force_partial=force, resolution="found_by_library")

    assert isinstance(decide(a_request(status), command), Refused)


@pytest.mark.parametrize("status", list(RequestStatus))
def test_override_at_another_branch_applies_to_lost_items_only(status):
    """Bound to the branch, an override elsewhere is refused with the lender named; every other status is unaffected."""
    command = from_request(override=SUPERVISOR)

    decision = decide(a_request(status), replace(command, is_override_elsewhere=True))

    if status in {RequestStatus.LOST, RequestStatus.DECLARED_LOST}:
        assert isinstance(decision, Refused)
        assert (decision.reason, decision.names_destination) == ("other_branch", True)
    else:
        assert decision == decide(a_request(status), command)


def test_backdate_is_the_time_of_the_discharge():
    """A drop-box return is discharged at the backdate, not at the scan."""
    backdate = NOW - timedelta(days=2)

    decision = returned(a_request(), a_scan(backdated_to=backdate))

    assert decision.at == backdate


@pytest.mark.parametrize(
    ("backdate", "reason"),
    [(NOW + timedelta(seconds=1), "backdate_in_future"), (NOW - timedelta(days=15), "backdate_before_loan")],
)
def test_backdate_in_the_future_or_before_the_loan_is_refused(backdate, reason):
    """test_discharge_time.py has the exact limits."""
    assert refused(a_request(), a_scan(backdated_to=backdate)).reason == reason


@pytest.mark.parametrize("clock", [NOW + timedelta(minutes=3), NOW - timedelta(days=15)])
def test_implausible_scan_time_is_replaced_with_a_warning(clock):
    """The discharge takes the worker's time when the station's is far ahead or before the loan."""
    decision = returned(a_request(), a_scan(occurred_at=clock))

    assert decision.at == NOW
    assert any("clock" in warning for warning in decision.warnings)


def test_late_delivery_keeps_the_time_of_the_scan():
    """A scan of an hour ago that arrives now is discharged an hour ago."""
    scanned = NOW - timedelta(hours=1)

    assert returned(a_request(), a_scan(occurred_at=scanned)).at == scanned


def test_loan_of_another_patron_is_refused():
    """The loan is not discharged; staff review the item, and the reply names its lender."""
    loan = OpenLoan(1, NOW - timedelta(days=1), other_patron=True, claimed_returned=True)

    decision = refused(a_request(RequestStatus.LOANED, ItemState(1, loan=loan)), a_scan())

    assert decision.reason == "loan_of_another_patron"
    assert decision.message == "Not returned: the loan on this item does not belong to request BR-7"
    assert decision.names_destination


@pytest.mark.parametrize(("resolution", "outcome"), [(None, "refused"), ("found_by_library", "returned")])
def test_claimed_returned_loan_needs_a_resolution(resolution, outcome):
    """The Return is refused until staff state how the claim ends."""
    loan = OpenLoan(1, NOW - timedelta(days=1), claimed_returned=True)

    decision = decide(a_request(RequestStatus.LOANED, ItemState(1, loan=loan)), from_request(resolution=resolution))

    assert kind(decision) == outcome


def test_refusal_of_a_claimed_loan_names_request_and_lender():
    """Staff read which request has the claim, and whose item is in hand."""
    loan = OpenLoan(1, NOW - timedelta(days=1), claimed_returned=True)

    decision = refused(a_request(RequestStatus.LOANED, ItemState(1, loan=loan)), a_scan())

    assert decision.reason == "claimed_returned"
    assert decision.message == "Not returned: the patron of request BR-7 claims to have returned it before"
    assert decision.names_destination


def three_items(back=0):
    return tuple(
        ItemState(n, n, None if n <= back else OpenLoan(n, NOW - timedelta(days=9)), NOW if n <= back else None)
        for n in (1, 2, 3)
    )


def test_request_is_returned_with_the_last_item():
    """The first of three items is checked in and its loan discharged; the status changes with the last."""
    first = returned(a_request(RequestStatus.LOANED, *three_items()), a_scan(1))
    last = returned(a_request(RequestStatus.LOANED, *three_items(back=2)), a_scan(3))

    assert (first.here, first.completes, first.status_after) == (1, False, RequestStatus.LOANED)
    assert (last.here, last.completes, last.status_after) == (3, True, RequestStatus.RETURNED_TO_PARTNER)
    assert (first.reason, last.reason) == ("item_checked_in", "loaned")
    assert [item.item_id for item in (*first.items, *last.items)] == [1, 3]


def test_scan_with_a_forced_partial_return_waits_for_the_other_items():
    """Only Return from the request can force a partial return; a scan checks in its item."""
    decision = returned(a_request(RequestStatus.LOANED, *three_items()), a_scan(1, force_partial=True))

    assert not decision.completes


@pytest.mark.parametrize("back", [0, 3])
def test_return_from_the_request_returns_all_items_that_are_not_here(back):
    """With none or all of the items here, the request is returned at once."""
    items = three_items(back=back)

    decision = returned(a_request(RequestStatus.LOANED, *items), from_request())

    assert decision.items == items[back:]
    assert (decision.here, decision.completes) == (3, True)


def test_forced_partial_return_completes_with_the_items_here():
    """Return from the request is refused while items are missing, until it is forced."""
    request = a_request(RequestStatus.LOANED, *three_items(back=1))

    unforced = refused(request, from_request())
    forced = returned(request, from_request(force_partial=True))

    assert unforced.reason == "items_missing"
    assert unforced.message == "Not returned: 1 of 3 items of request BR-7 are here"
    assert unforced.names_destination
    assert (forced.items, forced.here, forced.completes) == ((), 1, True)


def test_forced_partial_return_of_a_single_item_returns_it():
    """A request with one item has no part to wait for."""
    assert returned(a_request(), from_request(force_partial=True)).completes


def test_forced_partial_return_of_nothing_is_refused():
    """At least one of several items must be checked in before."""
    request = a_request(RequestStatus.LOANED, *three_items()[:2])

    decision = refused(request, from_request(force_partial=True))

    assert decision.reason == "nothing_checked_in"
    assert decision.message == "Not returned: none of the 2 items of request BR-7 is checked in"


def test_late_item_of_a_partial_return_is_checked_in():
    """An item that follows its returned request is checked in and its loan discharged; the status stays."""
    request = a_request(RequestStatus.RETURNED_TO_PARTNER, *three_items(back=1)[:2])

    decision = returned(request, a_scan(2))

    assert decision.reason == "late_item"
    assert decision.status_after is RequestStatus.RETURNED_TO_PARTNER
    assert not decision.completes
    assert not decision.fee_review


BEFORE = NOW - timedelta(days=2)
"""The time of a first Return."""


def test_scan_of_a_returned_item_repeats_the_return_of_that_item():
    """Time, station and number of items are those of the item, whether its request waits for others or not."""
    items = (ItemState(1, returned_at=BEFORE, returned_by="main-desk-1"), ItemState(2, returned_at=NOW))
    complete = a_request(
        RequestStatus.RETURNED_TO_PARTNER, *items, returned_at=NOW, returned_by="main-desk-2"
    )  # fmt: skip
    waiting = a_request(RequestStatus.LOANED, *items, ItemState(3))

    assert decide(complete, a_scan(1)) == AlreadyReturned(BEFORE, "main-desk-1", 2)
    assert decide(waiting, a_scan(1)) == AlreadyReturned(BEFORE, "main-desk-1", 2)


@pytest.mark.parametrize("command", [from_request(), a_scan(1)], ids=["from the request", "scan"])
def test_second_return_repeats_the_return_of_the_request(command):
    """Without a time at the item, time and station are those of the request."""
    request = a_request(RequestStatus.RETURNED_TO_PARTNER, ItemState(1), returned_at=BEFORE, returned_by="main-desk-1")

    assert decide(request, command) == AlreadyReturned(BEFORE, "main-desk-1", 0)


@pytest.mark.parametrize("item_id", [1, None])
def test_scan_after_the_confirmation_discharges_only(item_id):
    """The open loan ends at the time of the scan; the status stays completed, and no slip is printed."""
    scanned = NOW - timedelta(days=3)
    item = ItemState(1, loan=OpenLoan(1, NOW - timedelta(days=14)))

    decision = returned(a_request(RequestStatus.COMPLETED, item), a_scan(item_id, occurred_at=scanned))

    assert (decision.reason, decision.at, decision.items) == ("completed_before", scanned, (item,))
    assert (decision.status_after, decision.here) == (RequestStatus.COMPLETED, 1)
    assert decision.completes is False
    assert decision.wants_slip is False
    assert [warning.split(":")[0] for warning in decision.warnings] == ["The lender has confirmed this request already"]


@pytest.mark.parametrize("back", [0, 1])
def test_scan_after_the_confirmation_discharges_the_scanned_item_only(back):
    """Of several open loans only the scanned item's ends; it is counted with the items that are here."""
    items = three_items(back=back)

    decision = returned(a_request(RequestStatus.COMPLETED, *items), a_scan(2))

    assert (decision.items, decision.here) == ((items[1],), back + 1)


def test_scan_of_a_disputed_loan_after_the_confirmation_is_refused():
    """A loan of another patron is not discharged although the lender has confirmed."""
    loan = OpenLoan(1, NOW - timedelta(days=1), other_patron=True)

    decision = refused(a_request(RequestStatus.COMPLETED, ItemState(1, loan=loan)), a_scan())

    assert decision.reason == "loan_of_another_patron"
    assert "BR-7" in decision.message


def test_scan_of_a_claimed_loan_after_the_confirmation_is_discharged_with_a_resolution():
    """The resolution of the command counts after the confirmation as well."""
    request = a_request(RequestStatus.COMPLETED, ItemState(1, loan=OpenLoan(1, BEFORE, claimed_returned=True)))

    assert refused(request, a_scan()).reason == "claimed_returned"
    assert returned(request, a_scan(resolution="returned_by_patron")).reason == "completed_before"


# Warnings

CLOCK = "The station's clock is wrong: the time of the server was used."
FEE = "Reported lost before: a fee may be open, and is flagged for review."
ADDRESS = "The lender gave a return address with this item: it stands on the slip."
NO_CODE = "This library has no delivery code: the slip shows its name and address."
WITHOUT_CODE = LENDER.model_copy(update={"delivery_code": None})


@pytest.mark.parametrize(
    ("request_", "warnings"),
    [
        (a_request(), ()),
        (a_request(RequestStatus.LOST), (FEE,)),
        (a_request(own_return_address=True), (ADDRESS,)),
        (replace(a_request(), destination=WITHOUT_CODE), (NO_CODE,)),
        (replace(a_request(own_return_address=True), destination=WITHOUT_CODE), (ADDRESS,)),
    ],
    ids=["plain", "lost", "return address", "no delivery code", "return address without a delivery code"],
)
def test_warnings_follow_the_one_of_the_clock(request_, warnings):
    """A return address replaces the warning of a missing delivery code; a wrong clock is the first warning."""
    in_time = returned(request_, a_scan(override=SUPERVISOR))
    wrong_clock = returned(request_, a_scan(override=SUPERVISOR, occurred_at=NOW + timedelta(days=1)))

    assert in_time.warnings == warnings
    assert wrong_clock.warnings == (CLOCK, *warnings)


requests = st.builds(
    a_request,
    st.sampled_from(RequestStatus),
    *(
        st.builds(
            ItemState,
            st.just(n),
            st.just(n),
            st.none() | st.builds(
                OpenLoan, st.just(n), st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 1), timezones=st.just(UTC)),
                st.booleans(), st.booleans(),
            ),
            st.none() | st.just(NOW),
        )
        for n in (1, 2)
    ),
)  # fmt: skip
commands = st.builds(
    a_scan,
    st.sampled_from([None, 1, 2]),
    occurred_at=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC)),
    backdated_to=st.none() | st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC)),
    override=st.none() | st.just(SUPERVISOR),
    resolution=st.sampled_from([None, "found_by_library", "returned_by_patron"]),
    force_partial=st.booleans(),
)


def after(request, decision):
    """The request as the decision leaves it."""
    going = {item.item_id for item in decision.items}
    return replace(
        request,
        status=decision.status_after,
        items=tuple(
            replace(item, loan=None, returned_at=decision.at) if item.item_id in going else item
            for item in request.items
        ),
        returned_at=decision.at,
    )


@given(requests, commands)
def test_repeated_command_completes_a_request_at_most_once(request, command):
    """After any Return of any request, the same command completes nothing again."""
    decision = decide(request, command)
    if not isinstance(decision, Returned):
        return
    again = decide(after(request, decision), command)

    if decision.completes and not (command.item_id is None and command.force_partial):
        assert isinstance(again, AlreadyReturned)
    assert not (isinstance(again, Returned) and again.completes)


@given(requests, commands)
def test_return_ends_in_returned_to_partner_or_keeps_the_status(request, command):
    """No Return changes a closed request to another status, or discharges another patron's loan."""
    decision = decide(request, command)

    if isinstance(decision, Returned):
        assert decision.status_after in {RequestStatus.RETURNED_TO_PARTNER, request.status}
        assert request.status not in CLOSED - {RequestStatus.RETURNED_TO_PARTNER, RequestStatus.COMPLETED}
        if request.status is RequestStatus.COMPLETED:
            assert decision.status_after is RequestStatus.COMPLETED
            assert not decision.wants_slip
        assert not any(item.loan is not None and item.loan.other_patron for item in decision.items)


@given(requests, commands)
def test_discharge_is_never_in_the_future_or_before_its_loan(request, command):
    """The time of any discharge is at most the clock's tolerance ahead, and not before the loan."""
    decision = decide(request, command)

    if isinstance(decision, Returned):
        assert decision.at <= NOW + timedelta(minutes=2)
        for item in decision.items:
            if item.loan is not None and item.loan.loaned_at <= NOW:
                assert decision.at >= item.loan.loaned_at


def test_only_returned_to_partner_replies_already_returned():
    """One status repeats the first reply, under the reason code that the reply contains."""
    repeats = {status: row.reason for status, row in TABLE.items() if row.action is Action.REPEAT}

    assert repeats == {RequestStatus.RETURNED_TO_PARTNER: "already_returned"}


def test_table_has_every_status():
    """Each row that can refuse has a next step."""
    assert set(TABLE) == set(RequestStatus)
    assert all(row.next_step for row in TABLE.values() if row.action not in {Action.RETURN, Action.REPEAT})
