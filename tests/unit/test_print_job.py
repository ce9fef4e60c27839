# SPDX-License-Identifier: Apache-2.0
"""The way of a print job: what may follow what, who may take it, and what staff are told."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.print_jobs import PrintState as State
from tasks.printing.job import (
    TRANSITIONS,
    TRIES_BEFORE_HELD,
    Claimable,
    after_failure,
    is_lost_while_sending,
    may_claim,
    retry_delay,
    words,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_every_state_has_its_followers():
    """No state is forgotten; the last ones have none; `confirmed` can be reached from wherever paper may be."""
    assert set(TRANSITIONS) == set(State)
    assert {state for state, following in TRANSITIONS.items() if not following} == {
        State.CONFIRMED, State.EXPIRED, State.CANCELLED,
    }  # fmt: skip
    assert all(State.CONFIRMED in TRANSITIONS[state] for state in (State.ACCEPTED, State.DONE, State.UNKNOWN))


def test_a_sent_slip_never_goes_back_to_the_queue():
    """From `accepted`, `done` and `unknown` no way leads to another sending."""
    reachable = {State.ACCEPTED, State.DONE, State.UNKNOWN}
    while more := {after for state in reachable for after in TRANSITIONS[state]} - reachable:
        reachable |= more

    assert State.SENDING not in reachable
    assert State.CLAIMED not in reachable


@given(st.integers(1, 1000), st.floats(0, 1))
def test_waits_are_bounded(attempts, jitter):
    """Every wait lies between one second and five minutes, whatever the dice say."""
    assert timedelta(seconds=1) <= retry_delay(attempts, jitter) <= timedelta(minutes=5)


def test_waits_double():
    """Two, four, eight seconds..., up to five minutes."""
    assert [retry_delay(n, 0).total_seconds() for n in (1, 2, 3, 4)] == [2, 4, 8, 16]
    assert retry_delay(30, 0) == timedelta(minutes=5)


@given(st.booleans(), st.integers(1, 50), st.floats(0, 1))
def test_only_a_slip_of_which_nothing_left_is_tried_again(left, attempts, jitter):
    """A byte that may have left makes the slip unknown, for a person to decide; else it is tried again by itself."""
    setback = after_failure(byte_may_have_left=left, attempts=attempts, jitter=jitter)

    if left:
        assert (setback.state, setback.wait) == (State.UNKNOWN, None)
    else:
        assert setback.state is (State.HELD if attempts >= TRIES_BEFORE_HELD else State.FAILED_SAFE)
        assert setback.wait is not None


later, before = NOW + timedelta(seconds=1), NOW - timedelta(seconds=1)


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (Claimable(State.REQUESTED, None, None, can_repeat=False), True),
        (Claimable(State.REQUESTED, later, None, can_repeat=False), True),
        (Claimable(State.FAILED_SAFE, later, None, can_repeat=False), False),
        (Claimable(State.FAILED_SAFE, before, None, can_repeat=False), True),
        (Claimable(State.HELD, before, None, can_repeat=False), True),
        (Claimable(State.CLAIMED, None, later, can_repeat=False), False),
        (Claimable(State.CLAIMED, None, before, can_repeat=False), True),
        (Claimable(State.RENDERED, None, before, can_repeat=False), True),
        (Claimable(State.SENDING, None, before, can_repeat=False), False),
        (Claimable(State.SENDING, None, before, can_repeat=True), True),
        (Claimable(State.SENDING, None, later, can_repeat=True), False),
        *[
            (Claimable(state, before, before, can_repeat=True), False)
            for state in (State.ACCEPTED, State.DONE, State.CONFIRMED, State.UNKNOWN, State.EXPIRED, State.CANCELLED)
        ],
    ],
)
def test_who_may_take_a_job(job, expected):
    """A worker takes what waits or what a dead one dropped, and never what may have reached the paper."""
    assert may_claim(job, NOW) is expected


def test_died_while_sending_is_unknown_unless_it_can_be_repeated():
    """Only a printer that cannot repeat leaves a question behind."""
    assert is_lost_while_sending(Claimable(State.SENDING, None, before, can_repeat=False), NOW)
    assert not is_lost_while_sending(Claimable(State.SENDING, None, before, can_repeat=True), NOW)
    assert not is_lost_while_sending(Claimable(State.SENDING, None, later, can_repeat=False), NOW)


@pytest.mark.parametrize("state", list(State))
def test_nobody_says_printed_before_it_was_seen(state):
    """The words for each state say what is known; "printed" is not."""
    assert words(state, "main-slips", "the disk is full")
    assert "was printed" not in words(state, "main-slips").lower()
