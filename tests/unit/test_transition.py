# SPDX-License-Identifier: Apache-2.0
"""The rule of the Return: complete over the statuses, and never surprising."""

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

# What a Return does from each status, written out once more, independently of the table in the code.
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


def a_request(status=RequestStatus.LOANED, *items, **fields):
    # When the lender has confirmed, the loan has ended as well; the late scan has a test of its own.
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
def test_every_status_does_what_the_desk_expects(status):
    """From each status the scan of its one item has one outcome and one reason."""
    decision = decide(a_request(status), a_scan())

    assert (kind(decision), getattr(decision, "reason", "")) == EXPECTED[status]


@pytest.mark.parametrize("status", [s for s, (outcome, _) in EXPECTED.items() if outcome == "refused"])
def test_refusals_tell_the_item_the_reason_and_the_next_step(status):
    """A refusal names its request, its status in the desk's words, and what to do; the lender where it can be in hand."""
    decision = refused(a_request(status), a_scan())

    assert "BR-7" in decision.message
    assert status.label in decision.message
    assert decision.next_step
    in_hand = status in CLOSED or status in {
        RequestStatus.SHIPPED_PHYSICALLY, RequestStatus.LOST, RequestStatus.DECLARED_LOST,
    }  # fmt: skip
    assert decision.names_destination is in_hand


def test_recall_is_urgent_and_nothing_else_is():
    """Only a recalled item is marked urgent."""
    urgent = {s for s in RequestStatus if isinstance(d := decide(a_request(s), a_scan()), Returned) and d.urgent}

    assert urgent == {RequestStatus.RECALLED}


def test_the_table_says_nothing_without_effect():
    """A row that never refuses has nothing to say of refusals, and one that only refuses is not urgent."""
    for row in TABLE.values():
        assert not row.urgent or row.action is Action.RETURN
        if row.action in {Action.RETURN, Action.REPEAT}:
            assert (row.in_hand, row.next_step) == (False, "")


@pytest.mark.parametrize("status", [RequestStatus.LOST, RequestStatus.DECLARED_LOST])
def test_lost_returns_with_a_supervisor(status):
    """A supervisor's override returns a lost item and flags its fee for review."""
    decision = decide(a_request(status), from_request(override=SUPERVISOR))

    assert isinstance(decision, Returned)
    assert decision.fee_review
    assert decision.status_after is RequestStatus.RETURNED_TO_PARTNER


@given(
    status=st.sampled_from([s for s, (outcome, _) in EXPECTED.items() if outcome == "refused" and s not in
                            {RequestStatus.LOST, RequestStatus.DECLARED_LOST}]),
    item_id=st.sampled_from([None, 1]),
    force=st.booleans(),
)  # fmt: skip
def test_no_override_opens_another_status(status, item_id, force):
    """An override is for lost items alone: it moves no other refused status."""
    wish = a_scan(item_id, override=SUPERVISOR, force_partial=force, resolution="found_by_library")

    assert isinstance(decide(a_request(status), wish), Refused)


def test_backdate_is_when_the_loan_ends():
    """A drop-box return is discharged at the backdate, not at the scan."""
    backdate = NOW - timedelta(days=2)

    decision = returned(a_request(), a_scan(backdated_to=backdate))

    assert decision.at == backdate


@pytest.mark.parametrize(
    ("backdate", "reason"),
    [(NOW + timedelta(seconds=1), "backdate_in_future"), (NOW - timedelta(days=15), "backdate_before_loan")],
)
def test_impossible_backdate_is_refused(backdate, reason):
    """A backdate in the future, or before the loan began, is refused."""
    assert refused(a_request(), a_scan(backdated_to=backdate)).reason == reason


@pytest.mark.parametrize("clock", [NOW + timedelta(minutes=3), NOW - timedelta(days=15)])
def test_a_wrong_clock_is_not_believed(clock):
    """A scan time ahead of now or before the loan gives way to the server's, and the reply says so."""
    decision = returned(a_request(), a_scan(occurred_at=clock))

    assert decision.at == NOW
    assert any("clock" in warning for warning in decision.warnings)


def test_a_late_delivery_keeps_the_time_of_the_scan():
    """What was scanned an hour ago and arrives now is discharged an hour ago."""
    scanned = NOW - timedelta(hours=1)

    assert returned(a_request(), a_scan(occurred_at=scanned)).at == scanned


def test_loan_of_another_patron_goes_to_review():
    """A loan that is not the request's own is not discharged."""
    loan = OpenLoan(1, NOW - timedelta(days=1), other_patron=True)

    assert (
        refused(a_request(RequestStatus.LOANED, ItemState(1, loan=loan)), a_scan()).reason == "loan_of_another_patron"
    )


@pytest.mark.parametrize(("resolution", "outcome"), [(None, "refused"), ("found_by_library", "returned")])
def test_claimed_returned_needs_a_resolution(resolution, outcome):
    """A loan its reader claims to have returned waits for staff to say how the claim ends."""
    loan = OpenLoan(1, NOW - timedelta(days=1), claimed_returned=True)

    decision = decide(a_request(RequestStatus.LOANED, ItemState(1, loan=loan)), from_request(resolution=resolution))

    assert kind(decision) == outcome


def three_items(back=0):
    return tuple(
        ItemState(n, n, None if n <= back else OpenLoan(n, NOW - timedelta(days=9)), NOW if n <= back else None)
        for n in (1, 2, 3)
    )


def test_items_wait_for_the_last():
    """The request goes home with the last of its items, not before."""
    first = returned(a_request(RequestStatus.LOANED, *three_items()), a_scan(1))
    last = returned(a_request(RequestStatus.LOANED, *three_items(back=2)), a_scan(3))

    assert (first.here, first.completes, first.status_after) == (1, False, RequestStatus.LOANED)
    assert (last.here, last.completes, last.status_after) == (3, True, RequestStatus.RETURNED_TO_PARTNER)


def test_partial_return_is_forced_from_the_request():
    """With some items here, Return from the request is refused until it is forced; then only those here go."""
    request = a_request(RequestStatus.LOANED, *three_items(back=1))

    asked = refused(request, from_request())
    forced = decide(request, from_request(force_partial=True))

    assert asked.reason == "items_missing"
    assert isinstance(forced, Returned)
    assert forced.items == ()
    assert forced.completes


def test_late_item_of_a_partial_return_is_checked_in():
    """An item that comes after its request went home is still checked in and its loan discharged."""
    request = a_request(RequestStatus.RETURNED_TO_PARTNER, *three_items(back=2))

    decision = returned(request, a_scan(3))

    assert decision.reason == "late_item"
    assert decision.status_after is RequestStatus.RETURNED_TO_PARTNER
    assert not decision.completes


@pytest.mark.parametrize("item_id", [1, None])
def test_a_scan_after_the_lenders_word_ends_the_loan_alone(item_id):
    """The lender confirmed first: the late scan ends the open loan at its own time, and the status stays."""
    scanned = NOW - timedelta(days=3)
    loan = OpenLoan(1, NOW - timedelta(days=14))

    decision = decide(a_request(RequestStatus.COMPLETED, ItemState(1, loan=loan)), a_scan(item_id, occurred_at=scanned))

    assert isinstance(decision, Returned)
    assert (decision.at, decision.status_after) == (scanned, RequestStatus.COMPLETED)
    assert not decision.completes
    assert not decision.wants_slip
    assert any("confirmed" in warning for warning in decision.warnings)


def test_nothing_checked_in_is_no_partial_return():
    """A partial return of nothing is refused."""
    request = a_request(RequestStatus.LOANED, *three_items())

    assert refused(request, from_request(force_partial=True)).reason == "nothing_checked_in"


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
wishes = st.builds(
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


@given(requests, wishes)
def test_the_same_wish_moves_a_request_at_most_once(request, wish):
    """Whatever the state and the wish: asked again, nothing moves a second time."""
    decision = decide(request, wish)
    if not isinstance(decision, Returned):
        return
    again = decide(after(request, decision), wish)

    if decision.completes and not (wish.item_id is None and wish.force_partial):
        assert isinstance(again, AlreadyReturned)
    assert not (isinstance(again, Returned) and again.completes)


@given(requests, wishes)
def test_no_return_leads_anywhere_but_home(request, wish):
    """A Return ends in "Returned item to partner" or leaves the status as it is; it never leaves a closed one."""
    decision = decide(request, wish)

    if isinstance(decision, Returned):
        assert decision.status_after in {RequestStatus.RETURNED_TO_PARTNER, request.status}
        assert request.status not in CLOSED - {RequestStatus.RETURNED_TO_PARTNER, RequestStatus.COMPLETED}
        if request.status is RequestStatus.COMPLETED:
            assert decision.status_after is RequestStatus.COMPLETED
            assert not decision.wants_slip
        assert not any(item.loan is not None and item.loan.other_patron for item in decision.items)


@given(requests, wishes)
def test_no_discharge_lies_in_the_future_or_before_its_loan(request, wish):
    """The time of a discharge is never ahead of the clock's tolerance nor before the loan."""
    decision = decide(request, wish)

    if isinstance(decision, Returned):
        assert decision.at <= NOW + timedelta(minutes=2)
        for item in decision.items:
            if item.loan is not None and item.loan.loaned_at <= NOW:
                assert decision.at >= item.loan.loaned_at


def test_only_what_went_home_is_repeated_and_says_so():
    """One status answers "already returned", under the reason code that the reply carries."""
    repeats = {status: row.reason for status, row in TABLE.items() if row.action is Action.REPEAT}

    assert repeats == {RequestStatus.RETURNED_TO_PARTNER: "already_returned"}


def test_the_table_names_every_status():
    """No status is forgotten, and each refusal has a next step."""
    assert set(TABLE) == set(RequestStatus)
    assert all(row.next_step for row in TABLE.values() if row.action not in {Action.RETURN, Action.REPEAT})
