# SPDX-License-Identifier: Apache-2.0
"""The way of a print job through its states. Pure.

A slip may be printed again by itself only while no byte of it had left; after that a person decides.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from schemas.print_jobs import PrintState as State

FIRST_LOOK: Final = timedelta(seconds=1)
"""How soon after it was sent a printer is asked what became of a slip."""

TRIES_BEFORE_HELD: Final = 5
"""After so many failures in a row the printer counts as away, and the job is held."""

FOLLOWED_FOR: Final = timedelta(hours=24)
"""How long a printer is asked what became of a slip it accepted, or that nobody knows of."""

REDISPATCH_AFTER: Final = timedelta(seconds=30)
"""A slip that waits this long was not ordered, or its order was lost: the sweep orders it again."""

_LONGEST_NEGLECT: Final = timedelta(minutes=10)
_FIRST_WAIT: Final = timedelta(seconds=2)
_LONGEST_WAIT: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class Claimable:
    """What decides whether a worker may take a job now."""

    state: State
    next_attempt_at: datetime | None
    lease_until: datetime | None
    can_repeat: bool
    """Sending the same slip again to this printer cannot make a second one."""


@dataclass(frozen=True)
class FailureOutcome:
    """Where a failed try leaves the job."""

    state: State
    wait: timedelta | None
    """Until the next try by itself; `None` when a person decides."""


def retry_delay(attempts: int, jitter: float) -> timedelta:
    """How long a job that failed `attempts` times (from 1) waits: doubling from 2 seconds, at most 5 minutes.

    `jitter` from 0 to 1 takes up to half of it away, so that slips of a dead printer do not all come at once.
    """
    doublings: int = 2 ** min(max(attempts, 1) - 1, 20)
    wait = min(_FIRST_WAIT * doublings, _LONGEST_WAIT)
    return wait * (1 - 0.5 * jitter)


def after_failure(*, byte_may_have_left: bool, attempts: int, jitter: float) -> FailureOutcome:
    """Where a try that failed for the `attempts`-th time leaves the job."""
    if byte_may_have_left:
        return FailureOutcome(State.UNKNOWN, None)
    state = State.HELD if attempts >= TRIES_BEFORE_HELD else State.FAILED_SAFE
    return FailureOutcome(state, retry_delay(attempts, jitter))


def is_away(failures: int, retry_at: datetime | None, now: datetime) -> bool:
    """Tell whether a printer that took no slip `failures` times in a row is left alone at `now`."""
    return failures > 0 and retry_at is not None and retry_at > now


def counts_as_away(failures: int) -> bool:
    """Tell whether a printer that took no slip `failures` times in a row is told as away, and its fallback used."""
    return failures >= TRIES_BEFORE_HELD


def order_again_after(waited: timedelta) -> timedelta:
    """How long the sweep leaves a slip alone that it has ordered when it had `waited` so long already.

    As long again, from half a minute to ten: with all print workers away, orders do not pile up by the thousand.
    """
    return min(max(waited, REDISPATCH_AFTER), _LONGEST_NEGLECT)


def is_news(state: State, before: State) -> bool:
    """Tell whether staff want to hear that a try ended in `state`, when the slip was in `before` until that try.

    Each further failure says what they know.
    """
    return state not in {State.FAILED_SAFE, State.HELD} or state is not before


def may_claim(job: Claimable, now: datetime) -> bool:
    """Tell whether a worker may take the job at `now`."""
    match job.state:
        case State.REQUESTED:
            return True
        case State.FAILED_SAFE | State.HELD:
            return job.next_attempt_at is None or job.next_attempt_at <= now
        case State.CLAIMED | State.RENDERED:
            return lease_is_over(job, now)
        case State.SENDING:
            return job.can_repeat and lease_is_over(job, now)
        case _:
            return False


def is_lost_while_sending(job: Claimable, now: datetime) -> bool:
    """Tell whether the job's worker died while sending, so that nobody can know what the printer has."""
    return job.state is State.SENDING and not job.can_repeat and lease_is_over(job, now)


def lease_is_over(job: Claimable, now: datetime) -> bool:
    """Tell whether the worker that holds the job is taken for dead."""
    return job.lease_until is None or job.lease_until <= now


def next_poll_delay(age: timedelta) -> timedelta:
    """When a printer is asked again about a slip of that age that it still has: soon at first, once a minute later."""
    return min(max(age / 4, timedelta(seconds=2)), timedelta(minutes=1))
