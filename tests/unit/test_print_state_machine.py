# SPDX-License-Identifier: Apache-2.0
"""The way of a print job: what may follow what, who may take it, and what staff are told."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.models import PrintJob
from schemas.print_jobs import IN_HAND, TRANSITIONS, WAITING
from schemas.print_jobs import PrintState as State
from tasks.print_jobs import change_state
from tasks.printing.messages import words
from tasks.printing.state_machine import (
    TRIES_BEFORE_HELD,
    Claimable,
    after_failure,
    is_lost_while_sending,
    is_news,
    may_claim,
    order_again_after,
    retry_delay,
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


def test_a_job_waits_or_is_in_hand_or_is_settled():
    """What waits and what is in hand can be claimed by somebody some day; what is settled never."""
    claimable = {state for state, following in TRANSITIONS.items() if State.CLAIMED in following}

    assert claimable == WAITING | IN_HAND
    assert not WAITING & IN_HAND


@given(st.integers(1, 1000), st.floats(0, 1))
def test_waits_are_bounded(attempts, jitter):
    """Every wait lies between one second and five minutes, whatever the dice say."""
    assert timedelta(seconds=1) <= retry_delay(attempts, jitter) <= timedelta(minutes=5)


def test_waits_double():
    """Two, four, eight seconds..., up to five minutes; a job that never failed waits like one that failed once."""
    assert [retry_delay(n, 0).total_seconds() for n in (0, 1, 2, 3, 4, 8)] == [2, 2, 4, 8, 16, 256]
    assert retry_delay(9, 0) == retry_delay(30, 0) == retry_delay(10_000, 0) == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("attempts", "jitter", "seconds"),
    [(1, 0.0, 2.0), (1, 0.25, 1.75), (1, 1.0, 1.0), (3, 0.5, 6.0), (3, 1.0, 4.0), (30, 0.5, 225.0), (30, 1.0, 150.0)],
)
def test_jitter_shortens_a_wait_by_up_to_half(attempts, jitter, seconds):
    """The wait is multiplied by one minus half the jitter, also at the five minutes of its upper limit."""
    assert retry_delay(attempts, jitter) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("attempts", "state"), [(4, State.FAILED_SAFE), (5, State.HELD)])
def test_failure_waits_for_the_delay_of_its_attempt(attempts, state):
    """The wait after a failure is the retry delay of that attempt with that jitter, failed or held."""
    outcome = after_failure(byte_may_have_left=False, attempts=attempts, jitter=0.75)

    assert (outcome.state, outcome.wait) == (state, retry_delay(attempts, 0.75))


@pytest.mark.parametrize("after", list(State))
@pytest.mark.parametrize("before", list(State))
def test_change_state_accepts_the_transitions_only(before, after):
    """A transition of the table sets state and time, any other one raises `ValueError` and changes nothing."""
    job = PrintJob(state=before, state_since=NOW)
    now = NOW + timedelta(seconds=1)

    if after in TRANSITIONS[before]:
        change_state(job, after, now)
        assert (job.state, job.state_since) == (after, NOW if after is before else now)
    else:
        with pytest.raises(ValueError, match=f"cannot change from {before} to {after}"):
            change_state(job, after, now)
        assert (job.state, job.state_since) == (before, NOW)


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


class Story:
    """One job and what reached the paper, driven by the rules alone: what a worker would do, and where it may die."""

    def __init__(self, *, can_repeat):
        self.state, self.now, self.attempts = State.REQUESTED, NOW, 0
        self.lease = self.next = None
        self.can_repeat = can_repeat
        self.slips = 0

    def job(self):
        return Claimable(self.state, self.next, self.lease, self.can_repeat)

    def move(self, state):
        assert state in TRANSITIONS[self.state]
        self.state = state

    def play(self, ending):
        """A worker is asked to print, and gets as far as `ending`."""
        if is_lost_while_sending(self.job(), self.now):
            self.move(State.UNKNOWN)
        elif may_claim(self.job(), self.now):
            self.move(State.CLAIMED)
            self.attempts, self.lease = self.attempts + 1, self.now + timedelta(seconds=90)
            if ending != "dies claimed":
                self.move(State.RENDERED)
                self.send(ending)

    def send(self, ending):
        if ending == "printer away":
            self.fail(left=False)
            return
        self.move(State.SENDING)
        if ending == "dies before the first byte":
            return
        self.slips = 1 if self.can_repeat else self.slips + 1
        if ending == "interrupted":
            self.fail(left=not self.can_repeat)
        elif ending == "well":
            self.move(State.ACCEPTED)
            self.move(State.DONE)

    def fail(self, *, left):
        setback = after_failure(byte_may_have_left=left, attempts=self.attempts, jitter=0.5)
        self.move(setback.state)
        self.next, self.lease = (None if setback.wait is None else self.now + setback.wait), None


ENDINGS = ["dies claimed", "printer away", "dies before the first byte", "dies after sending", "interrupted", "well"]


@given(st.booleans(), st.lists(st.tuples(st.sampled_from(ENDINGS), st.integers(0, 400)), max_size=30))
def test_at_most_one_slip_leaves_and_no_job_is_forgotten(can_repeat, plays):
    """Whatever fails when: never two slips; and tried long enough, a job is sent, or a person is asked."""
    story = Story(can_repeat=can_repeat)

    for ending, seconds in plays:
        story.play(ending)
        story.now += timedelta(seconds=seconds)
    story.now += timedelta(minutes=10)
    story.play("well")

    assert story.slips <= 1
    assert story.state is State.DONE or (story.state is State.UNKNOWN and not can_repeat)
    assert story.slips == 1 or story.state is State.UNKNOWN


@given(st.timedeltas(timedelta(0), timedelta(days=30)))
def test_orders_do_not_pile_up(waited):
    """The longer a slip has waited for a worker, the more rarely it is ordered again; but within ten minutes."""
    assert min(waited, timedelta(minutes=10)) <= order_again_after(waited) <= timedelta(minutes=10)
    assert order_again_after(waited) >= timedelta(seconds=30)


def test_a_printer_that_stays_away_is_told_twice():
    """The first failure is told, and that the slip is held; the others would be the same words again."""
    told = []
    before = State.REQUESTED
    for attempts in range(1, 10):
        state = after_failure(byte_may_have_left=False, attempts=attempts, jitter=0).state
        told += [state] if is_news(state, before) else []
        before = state

    assert told == [State.FAILED_SAFE, State.HELD]


@pytest.mark.parametrize("state", list(State))
def test_nobody_says_printed_before_it_was_seen(state):
    """The words for each state say what is known; "printed" is not."""
    assert words(state, "main-slips", "the disk is full")
    assert "was printed" not in words(state, "main-slips").lower()
