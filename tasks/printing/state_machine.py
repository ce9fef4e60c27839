# SPDX-License-Identifier: Apache-2.0
"""Rules of the print queue: claims, retries, backoff and polling. Pure.

A worker prints a slip again automatically only while no byte of it has left; after that an operator decides. The
transitions themselves are `schemas.print_jobs.TRANSITIONS`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from schemas.print_jobs import PrintState as State

FIRST_POLL_DELAY: Final = timedelta(seconds=1)
"""Time from sending a slip until the printer is first polled for the result."""

FAILURES_BEFORE_HELD: Final = 5
"""After this many consecutive failures the printer counts as unavailable, and the job is held."""

RECONCILE_WINDOW: Final = timedelta(hours=24)
"""Longest time for which a printer is polled for the result of a slip, from the creation of its job."""

REDISPATCH_AFTER: Final = timedelta(seconds=30)
"""After this time without a claim, the sweep assumes that the print task is lost and dispatches the job again."""

_LONGEST_REDISPATCH_DELAY: Final = timedelta(minutes=10)
_FIRST_RETRY_DELAY: Final = timedelta(seconds=2)
_LONGEST_RETRY_DELAY: Final = timedelta(minutes=5)
_SHORTEST_POLL_DELAY: Final = timedelta(seconds=2)
_LONGEST_POLL_DELAY: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Claimable:
    """The facts that decide whether a worker may claim a job."""

    state: State
    next_attempt_at: datetime | None
    lease_until: datetime | None
    can_repeat: bool
    """A repeated transmission to this printer cannot print a second slip."""


@dataclass(frozen=True)
class FailureOutcome:
    """The state of a job after a failed attempt."""

    state: State
    wait: timedelta | None
    """Until the automatic retry; `None` when an operator decides."""


def retry_delay(attempts: int, jitter: float) -> timedelta:
    """The backoff after `attempts` failures (from 1): 2 seconds, doubled with each failure, at most 5 minutes.

    `jitter` from 0 to 1 shortens it by up to half, so that the jobs of a broken printer are not all retried at once.
    """
    factor: int = 2 ** min(max(attempts, 1) - 1, 20)
    wait = min(_FIRST_RETRY_DELAY * factor, _LONGEST_RETRY_DELAY)
    return wait * (1 - 0.5 * jitter)


def after_failure(*, byte_may_have_left: bool, attempts: int, jitter: float) -> FailureOutcome:
    """The state and the backoff of a job after its failure number `attempts`."""
    if byte_may_have_left:
        return FailureOutcome(State.UNKNOWN, None)
    state = State.HELD if attempts >= FAILURES_BEFORE_HELD else State.FAILED_SAFE
    return FailureOutcome(state, retry_delay(attempts, jitter))


def is_backing_off(failures: int, retry_at: datetime | None, now: datetime) -> bool:
    """True while a printer with `failures` consecutive failures is not tried again."""
    return failures > 0 and retry_at is not None and retry_at > now


def is_unavailable(failures: int) -> bool:
    """True once a printer has failed so often in a row that stations are notified and its fallback is used."""
    return failures >= FAILURES_BEFORE_HELD


def redispatch_delay(waited: timedelta) -> timedelta:
    """The time until the sweep dispatches a job again that it has dispatched after the job `waited` so long.

    The delay equals `waited`, from half a minute to ten: while all print workers are stopped, tasks do not pile up by
    the thousand.
    """
    return min(max(waited, REDISPATCH_AFTER), _LONGEST_REDISPATCH_DELAY)


def needs_notice(state: State, previous: State) -> bool:
    """True when the station gets a notice of an attempt that ended in `state` and began in `previous`.

    A further failure in the same state repeats what staff know.
    """
    return state not in {State.FAILED_SAFE, State.HELD} or state is not previous


def is_claimable(job: Claimable, now: datetime) -> bool:
    """True when a worker may claim the job at `now`."""
    match job.state:
        case State.REQUESTED:
            return True
        case State.FAILED_SAFE | State.HELD:
            return job.next_attempt_at is None or job.next_attempt_at <= now
        case State.CLAIMED | State.RENDERED:
            return lease_has_ended(job, now)
        case State.SENDING:
            return job.can_repeat and lease_has_ended(job, now)
        case _:
            return False


def is_lost_while_sending(job: Claimable, now: datetime) -> bool:
    """True when the job's worker died while sending to a printer that cannot repeat: the result is unknown."""
    return job.state is State.SENDING and not job.can_repeat and lease_has_ended(job, now)


def lease_has_ended(job: Claimable, now: datetime) -> bool:
    """True when the worker that holds the job counts as dead."""
    return job.lease_until is None or job.lease_until <= now


def next_poll_delay(age: timedelta) -> timedelta:
    """The time until the next poll for a job of that age: a quarter of the age, from 2 seconds to 1 minute."""
    return min(max(age / 4, _SHORTEST_POLL_DELAY), _LONGEST_POLL_DELAY)
