# SPDX-License-Identifier: Apache-2.0
"""The rule of undo: which Return is undone, in full or the status alone, and which is refused."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.request_status import RequestStatus as Status
from tasks.requests.model import Refused
from tasks.returns.undo_rule import AlreadyUndone, PastReturn, Undone, decide_undo

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
WINDOW = timedelta(minutes=10)
MICROSECOND = timedelta(microseconds=1)
PAST = PastReturn(
    event_id=UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
    external_id="BR-7",
    recorded_at=NOW,
    status_before=Status.OVERDUE,
    status_after=Status.RETURNED_TO_PARTNER,
    is_latest=True,
    is_undone=False,
)


def undo(
    past: PastReturn | None = PAST,
    status: Status = Status.RETURNED_TO_PARTNER,
    *,
    now: datetime = NOW,
    window: timedelta = WINDOW,
    reason: str | None = None,
) -> Undone | AlreadyUndone | Refused:
    return decide_undo(past, status, now=now, window=window, reason=reason)


def refused(*arguments: Any, **options: Any) -> Refused:
    decision = undo(*arguments, **options)
    assert isinstance(decision, Refused)
    assert decision.next_step
    return decision


@pytest.mark.parametrize("age", [timedelta(0), WINDOW], ids=["at once", "at the window's end"])
def test_undo_within_the_window_restores_everything(age):
    """Up to the window's end, included, status, loan and patron link are restored; a reason is not needed."""
    assert undo(now=NOW + age) == Undone(Status.OVERDUE, in_full=True)


def test_undo_after_the_window_with_a_reason_restores_the_status_alone():
    """One microsecond after the window, a reason undoes the status and not the loan."""
    assert undo(now=NOW + WINDOW + MICROSECOND, reason="wrong book") == Undone(Status.OVERDUE, in_full=False)


@pytest.mark.parametrize("reason", [None, "", "  \n"])
def test_undo_after_the_window_without_a_reason_is_refused(reason):
    """A missing or blank reason is refused; the message names the request and the window in minutes."""
    decision = refused(now=NOW + WINDOW + MICROSECOND, reason=reason)

    assert decision.reason == "reason_needed"
    assert decision.message == "Not undone: the Return of request BR-7 is more than 10 minutes old"


def test_undo_without_a_return_is_refused():
    """An event that is not a Return leaves nothing to undo."""
    decision = refused(None)

    assert decision.reason == "nothing_to_undo"
    assert decision.message == "Not undone: there is no Return to undo"


def test_second_undo_changes_nothing():
    """An undone Return is reported as undone before, whatever happened since and whatever the window is."""
    past = replace(PAST, is_undone=True, is_latest=False)

    assert undo(past, Status.COMPLETED, window=timedelta(0)) == AlreadyUndone()


def test_undo_after_the_lenders_confirmation_is_refused():
    """A completed request is never reopened, with a reason or without."""
    decision = refused(status=Status.COMPLETED, reason="wrong book")

    assert decision.reason == "completed"
    assert decision.message == "Not undone: the lender has confirmed request BR-7, so it has the item back"


def test_undo_of_an_earlier_return_is_refused():
    """A Return that a later one follows is refused, with the request's present status in the message."""
    decision = refused(replace(PAST, is_latest=False), reason="wrong book")

    assert decision.reason == "changed_since"
    assert decision.message == "Not undone: request BR-7 has changed since, and is “Returned item to partner”"


@pytest.mark.parametrize("status", [s for s in Status if s not in {Status.RETURNED_TO_PARTNER, Status.COMPLETED}])
def test_undo_after_a_change_of_status_is_refused(status):
    """Any status other than the one that the Return left is refused."""
    decision = refused(status=status, reason="wrong book")

    assert decision.reason == "changed_since"
    assert status.label in decision.message


def test_undo_of_a_partial_return_restores_the_same_status():
    """A Return of one item of several left the status as it was."""
    past = replace(PAST, status_before=Status.LOANED, status_after=Status.LOANED)

    assert undo(past, Status.LOANED) == Undone(Status.LOANED, in_full=True)


def test_undo_is_refused_when_the_window_is_zero():
    """A library that turns undo off refuses it with a reason as well."""
    decision = refused(window=timedelta(0), reason="wrong book")

    assert decision.reason == "undo_off"
    assert decision.message == "Not undone: undo is turned off in this library"


@given(
    past=st.builds(
        PastReturn,
        event_id=st.uuids(version=4),
        external_id=st.just("BR-7"),
        recorded_at=st.timedeltas(timedelta(0), timedelta(days=1)).map(lambda age: NOW - age),
        status_before=st.sampled_from(Status),
        status_after=st.sampled_from(Status),
        is_latest=st.booleans(),
        is_undone=st.booleans(),
    ),
    status=st.sampled_from(Status),
    window=st.timedeltas(timedelta(0), timedelta(days=1)),
    reason=st.sampled_from([None, "wrong book"]),
)
def test_no_undo_reopens_a_completed_request(past, status, window, reason):
    """An undo happens only to the latest Return whose status still stands, and never to a completed request."""
    decision = undo(past, status, window=window, reason=reason)

    if isinstance(decision, Undone):
        assert status is past.status_after
        assert status is not Status.COMPLETED
        assert past.is_latest
        assert window > timedelta(0)
        assert decision.status_after is past.status_before
        assert decision.in_full or reason is not None


@given(status=st.sampled_from(Status), is_latest=st.booleans(), window=st.sampled_from([timedelta(0), WINDOW]))
def test_undo_at_another_branch_is_refused_whatever_the_state(status, is_latest, window):
    """Where the library binds undo to the branch, a Return of another branch is not undone, and a reason does not help."""
    elsewhere = replace(PAST, is_elsewhere=True, is_latest=is_latest)

    decision = refused(elsewhere, status, window=window, reason="wrong book")

    assert (decision.reason, "another branch" in decision.message) == ("other_branch", True)
    assert undo(replace(elsewhere, is_undone=True)) == AlreadyUndone()
