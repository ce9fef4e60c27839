# SPDX-License-Identifier: Apache-2.0
"""The time of a discharge, at and around each limit."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.requests.discharge_time import discharge_time
from tasks.requests.model import CLOCK_TOLERANCE, Refused

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LOANED = NOW - timedelta(days=14)
MICROSECOND = timedelta(microseconds=1)
WRONG_CLOCK = ("The station's clock is wrong: the time of the server was used.",)
TIMES = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))


def scanned(at: datetime, loan_began: datetime | None = LOANED) -> tuple[datetime, tuple[str, ...]] | Refused:
    return discharge_time(occurred_at=at, received_at=NOW, backdate=None, loan_began=loan_began)


def backdated(to: datetime, loan_began: datetime | None = LOANED) -> tuple[datetime, tuple[str, ...]] | Refused:
    # The station's clock is far ahead: with a backdate it does not matter.
    return discharge_time(
        occurred_at=NOW + timedelta(days=1),
        received_at=NOW,
        backdate=to,
        loan_began=loan_began,
        action="Not discharged",
    )


def test_tolerance_is_two_minutes():
    """The architecture page names this limit."""
    assert timedelta(minutes=2) == CLOCK_TOLERANCE


@pytest.mark.parametrize(
    "at",
    [NOW, NOW - timedelta(hours=1), NOW + CLOCK_TOLERANCE, LOANED],
    ids=["now", "an hour ago", "exactly the tolerance ahead", "exactly the loan's begin"],
)
def test_plausible_time_of_the_scan_is_used(at):
    """The discharge takes the station's time from the loan's begin to the tolerance ahead, both included."""
    assert scanned(at) == (at, ())


@pytest.mark.parametrize(
    "at",
    [NOW + CLOCK_TOLERANCE + MICROSECOND, LOANED - MICROSECOND],
    ids=["beyond the tolerance", "before the loan's begin"],
)
def test_implausible_time_of_the_scan_is_replaced_with_a_warning(at):
    """One microsecond beyond either limit, the discharge takes the worker's time and the reply has a warning."""
    assert scanned(at) == (NOW, WRONG_CLOCK)


def test_any_past_time_is_used_without_a_loan():
    """An item that was never loaned sets no lower limit."""
    assert scanned(NOW - timedelta(days=4000), loan_began=None) == (NOW - timedelta(days=4000), ())


@pytest.mark.parametrize("to", [NOW, NOW - MICROSECOND, LOANED], ids=["now", "just before now", "the loan's begin"])
def test_backdate_between_the_loan_and_now_is_used(to):
    """The discharge takes a backdate from the loan's begin to now, both included."""
    assert backdated(to) == (to, ())


@pytest.mark.parametrize(
    ("to", "reason", "message"),
    [
        (NOW + MICROSECOND, "backdate_in_future", "Not discharged: the backdate lies in the future"),
        (LOANED - MICROSECOND, "backdate_before_loan", "Not discharged: the backdate lies before the loan began"),
    ],
)
def test_backdate_one_microsecond_beyond_a_limit_is_refused(to, reason, message):
    """The refusal begins with the action that was asked for, and has a next step."""
    refused = backdated(to)

    assert isinstance(refused, Refused)
    assert (refused.reason, refused.message) == (reason, message)
    assert refused.next_step == "Correct the date, then scan again."


def test_refusal_names_the_return_by_default():
    """Without an action the refusal is that of a Return."""
    refused = discharge_time(occurred_at=NOW, received_at=NOW, backdate=NOW + MICROSECOND, loan_began=None)

    assert isinstance(refused, Refused)
    assert refused.message.startswith("Not returned: ")


def test_any_past_backdate_is_used_without_a_loan():
    """An item that was never loaned sets no lower limit for a backdate."""
    assert backdated(NOW - timedelta(days=4000), loan_began=None) == (NOW - timedelta(days=4000), ())


@given(occurred_at=TIMES, backdate=st.none() | TIMES, loan_began=st.none() | TIMES)
def test_discharge_is_never_in_the_future_or_before_its_loan(occurred_at, backdate, loan_began):
    """Any time that is returned lies between the loan's begin and the tolerance ahead of the worker."""
    result = discharge_time(occurred_at=occurred_at, received_at=NOW, backdate=backdate, loan_began=loan_began)

    if not isinstance(result, Refused):
        at, _ = result
        assert at <= NOW + CLOCK_TOLERANCE
        assert loan_began is None or loan_began > NOW or at >= loan_began
