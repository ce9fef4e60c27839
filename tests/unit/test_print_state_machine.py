# SPDX-License-Identifier: Apache-2.0
"""The states of a print job: transitions, claims, retries, and the messages for staff."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.models import PrintJob
from schemas.print_jobs import IN_HAND, TRANSITIONS, WAITING
from schemas.print_jobs import PrintState as State
from tasks.print_jobs import change_state
from tasks.printing.messages import describe
from tasks.printing.state_machine import (
    FAILURES_BEFORE_HELD,
    Claimable,
    after_failure,
    is_backing_off,
    is_claimable,
    is_lost_while_sending,
    is_unavailable,
    needs_notice,
    next_poll_delay,
    redispatch_delay,
    retry_delay,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_transitions_have_every_state():
    """Three states are final; `confirmed` follows each state in which paper may exist."""
    assert set(TRANSITIONS) == set(State)
    assert {state for state, following in TRANSITIONS.items() if not following} == {
        State.CONFIRMED, State.EXPIRED, State.CANCELLED,
    }  # fmt: skip
    assert all(State.CONFIRMED in TRANSITIONS[state] for state in (State.ACCEPTED, State.DONE, State.UNKNOWN))


def test_sent_slip_never_returns_to_the_queue():
    """From `accepted`, `done` and `unknown` no path leads to another sending."""
    reachable = {State.ACCEPTED, State.DONE, State.UNKNOWN}
    while more := {after for state in reachable for after in TRANSITIONS[state]} - reachable:
        reachable |= more

    assert State.SENDING not in reachable
    assert State.CLAIMED not in reachable


def test_job_is_claimable_while_it_waits_or_is_in_hand():
    """The two sets do not overlap, and no other state can be claimed."""
    claimable = {state for state, following in TRANSITIONS.items() if State.CLAIMED in following}

    assert claimable == WAITING | IN_HAND
    assert not WAITING & IN_HAND


@given(st.integers(1, 1000), st.floats(0, 1))
def test_retry_delay_is_between_one_second_and_five_minutes(attempts, jitter):
    """The limits hold for any number of attempts and any jitter."""
    assert timedelta(seconds=1) <= retry_delay(attempts, jitter) <= timedelta(minutes=5)


def test_retry_delay_doubles_up_to_five_minutes():
    """Two, four, eight seconds and so on; a job that never failed waits like one that failed once."""
    assert [retry_delay(n, 0).total_seconds() for n in (0, 1, 2, 3, 4, 8)] == [2, 2, 4, 8, 16, 256]
    assert retry_delay(9, 0) == retry_delay(30, 0) == retry_delay(10_000, 0) == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("attempts", "jitter", "seconds"),
    [(1, 0.0, 2.0), (1, 0.25, 1.75), (1, 1.0, 1.0), (3, 0.5, 6.0), (3, 1.0, 4.0), (30, 0.5, 225.0), (30, 1.0, 150.0)],
)
def test_jitter_shortens_the_retry_delay_by_up_to_half(attempts, jitter, seconds):
    """The wait is multiplied by one minus half the jitter, also at the five minutes of its upper limit."""
    assert retry_delay(attempts, jitter) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("attempts", "state"), [(4, State.FAILED_SAFE), (5, State.HELD)])
def test_failed_job_waits_for_the_delay_of_its_attempt(attempts, state):
    """The wait after a failure is the retry delay of that attempt with that jitter, failed or held."""
    outcome = after_failure(byte_may_have_left=False, attempts=attempts, jitter=0.75)

    assert (outcome.state, outcome.wait) == (state, retry_delay(attempts, 0.75))


@pytest.mark.parametrize("after", list(State))
@pytest.mark.parametrize("before", list(State))
def test_change_state_accepts_only_transitions(before, after):
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
def test_failure_after_the_first_byte_is_unknown_and_not_retried(left, attempts, jitter):
    """A person decides about a slip of which a byte may have left; any other slip is retried."""
    outcome = after_failure(byte_may_have_left=left, attempts=attempts, jitter=jitter)

    if left:
        assert (outcome.state, outcome.wait) == (State.UNKNOWN, None)
    else:
        assert outcome.state is (State.HELD if attempts >= FAILURES_BEFORE_HELD else State.FAILED_SAFE)
        assert outcome.wait is not None


later, before = NOW + timedelta(microseconds=1), NOW - timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (Claimable(State.REQUESTED, None, None, can_repeat=False), True),
        (Claimable(State.REQUESTED, later, None, can_repeat=False), True),
        (Claimable(State.FAILED_SAFE, later, None, can_repeat=False), False),
        (Claimable(State.FAILED_SAFE, before, None, can_repeat=False), True),
        (Claimable(State.FAILED_SAFE, NOW, None, can_repeat=False), True),
        (Claimable(State.HELD, before, None, can_repeat=False), True),
        (Claimable(State.HELD, None, later, can_repeat=False), True),
        (Claimable(State.CLAIMED, None, later, can_repeat=False), False),
        (Claimable(State.CLAIMED, None, before, can_repeat=False), True),
        (Claimable(State.CLAIMED, None, NOW, can_repeat=False), True),
        (Claimable(State.CLAIMED, later, None, can_repeat=False), True),
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
def test_worker_claims_waiting_jobs_and_expired_leases(job, expected):
    """A worker never claims a job whose slip may exist, unless the printer can repeat."""
    assert is_claimable(job, NOW) is expected


def test_lease_that_expires_while_sending_is_lost_unless_the_printer_can_repeat():
    """The result is unknown only for a printer that cannot repeat, and only after the lease."""
    assert is_lost_while_sending(Claimable(State.SENDING, None, before, can_repeat=False), NOW)
    assert not is_lost_while_sending(Claimable(State.SENDING, None, before, can_repeat=True), NOW)
    assert not is_lost_while_sending(Claimable(State.SENDING, None, later, can_repeat=False), NOW)


@pytest.mark.parametrize(
    ("failures", "retry_at", "away"), [(1, later, True), (1, NOW, False), (0, later, False), (3, None, False)]
)
def test_printer_is_left_alone_until_its_retry_time(failures, retry_at, away):
    """A printer that failed gets no slip before its retry time; one without a failure gets slips at any time."""
    assert is_backing_off(failures, retry_at, NOW) is away


@pytest.mark.parametrize(("failures", "away"), [(4, False), (5, True), (6, True)])
def test_printer_counts_as_away_from_the_fifth_failure(failures, away):
    """From then on its fallback is used."""
    assert is_unavailable(failures) is away


@pytest.mark.parametrize(("age", "delay"), [(0, 2), (8, 2), (12, 3), (100, 25), (240, 60), (244, 60), (10**6, 60)])
def test_poll_delay_is_a_quarter_of_the_age_between_two_seconds_and_a_minute(age, delay):
    """A printer is polled often about a new slip, and once a minute about an old one."""
    assert next_poll_delay(timedelta(seconds=age)) == timedelta(seconds=delay)


class Job:
    """One job and the number of its slips, driven by the rules alone as a worker would, with the places where it may die."""

    def __init__(self, *, can_repeat):
        self.state, self.now, self.attempts = State.REQUESTED, NOW, 0
        self.lease = self.next = None
        self.can_repeat = can_repeat
        self.slips = 0

    def claimable(self):
        return Claimable(self.state, self.next, self.lease, self.can_repeat)

    def move(self, state):
        assert state in TRANSITIONS[self.state]
        self.state = state

    def attempt(self, ending):
        """Let a worker try to print; the attempt ends with `ending`."""
        if is_lost_while_sending(self.claimable(), self.now):
            self.move(State.UNKNOWN)
        elif is_claimable(self.claimable(), self.now):
            self.move(State.CLAIMED)
            self.attempts, self.lease = self.attempts + 1, self.now + timedelta(seconds=90)
            if ending != "dies claimed":
                self.move(State.RENDERED)
                self.send(ending)

    def send(self, ending):
        if ending == "printer unavailable":
            self.fail(left=False)
            return
        self.move(State.SENDING)
        if ending == "dies before the first byte":
            return
        self.slips = 1 if self.can_repeat else self.slips + 1
        if ending == "interrupted":
            self.fail(left=not self.can_repeat)
        elif ending == "succeeds":
            self.move(State.ACCEPTED)
            self.move(State.DONE)

    def fail(self, *, left):
        outcome = after_failure(byte_may_have_left=left, attempts=self.attempts, jitter=0.5)
        self.move(outcome.state)
        self.next, self.lease = (None if outcome.wait is None else self.now + outcome.wait), None


ENDINGS = [
    "dies claimed",
    "printer unavailable",
    "dies before the first byte",
    "dies after sending",
    "interrupted",
    "succeeds",
]


@given(st.booleans(), st.lists(st.tuples(st.sampled_from(ENDINGS), st.integers(0, 400)), max_size=30))
def test_any_failures_print_at_most_one_slip_and_settle_the_job(can_repeat, attempts):
    """After enough attempts a job is sent, or is unknown and a person decides."""
    job = Job(can_repeat=can_repeat)

    for ending, seconds in attempts:
        job.attempt(ending)
        job.now += timedelta(seconds=seconds)
    job.now += timedelta(minutes=10)
    job.attempt("succeeds")

    assert job.slips <= 1
    assert job.state is State.DONE or (job.state is State.UNKNOWN and not can_repeat)
    assert job.slips == 1 or job.state is State.UNKNOWN


@given(st.timedeltas(timedelta(0), timedelta(days=30)))
def test_redispatch_interval_grows_with_the_wait_up_to_ten_minutes(waited):
    """A slip is dispatched again after as long as it has waited, from 30 seconds to ten minutes."""
    assert min(waited, timedelta(minutes=10)) <= redispatch_delay(waited) <= timedelta(minutes=10)
    assert redispatch_delay(waited) >= timedelta(seconds=30)


def test_repeated_failure_is_reported_twice():
    """The first failure and the hold are reported; the failures between them would repeat the message."""
    reported = []
    before = State.REQUESTED
    for attempts in range(1, 10):
        state = after_failure(byte_may_have_left=False, attempts=attempts, jitter=0).state
        reported += [state] if needs_notice(state, before) else []
        before = state

    assert reported == [State.FAILED_SAFE, State.HELD]


@pytest.mark.parametrize("state", list(State))
def test_message_of_a_state_never_claims_that_the_slip_was_printed(state):
    """Only packing confirms a slip."""
    assert describe(state, "main-slips", "the disk is full")
    assert "was printed" not in describe(state, "main-slips").lower()
