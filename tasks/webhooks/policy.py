# SPDX-License-Identifier: Apache-2.0
"""Limits of the delivery of webhooks, and the rules of a retry. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final

FIRST_DELAY: Final = timedelta(seconds=5)
FACTOR: Final = 4
LONGEST_DELAY: Final = timedelta(hours=1)
"""Greatest delay of one delivery between two attempts: 5 s, 20 s, 80 s, 5 min, 21 min, then 1 h."""
LONGEST_PAUSE: Final = timedelta(minutes=5)
"""Greatest pause of an endpoint that fails. Each attempt after a pause sends one message."""
JITTER: Final = 0.2
"""Greatest share by which a delay is longer or shorter, so that many messages do not return at one moment."""
LONGEST_RETRY_AFTER: Final = timedelta(hours=1)
"""Greatest pause that a response may ask for."""
MAX_PENDING: Final = 1_000
"""Pending deliveries of an endpoint. Further events stay in the history, which is read again when there is room."""
MAX_ENDPOINTS: Final = 20
"""Each endpoint that fails occupies one thread for one timeout."""
MAX_ERROR_LENGTH: Final = 200


@dataclass(frozen=True)
class WebhookPolicy:
    """Durations of the delivery."""

    timeout: timedelta = timedelta(seconds=15)
    """For one attempt: connecting, sending and the response together. The specification recommends 15 to 30 seconds."""
    give_up_after: timedelta = timedelta(days=7)
    """Time after which a delivery that still fails is `failed`."""
    retention: timedelta = timedelta(days=30)
    """Time for which a delivered or failed delivery is kept."""
    settled_after: timedelta = timedelta(minutes=3)
    """Age of a line of history at which no transaction is open that could still add a line before it."""
    lease_margin: timedelta = timedelta(seconds=60)
    """Beyond the timeout: the resolver's own timeouts, and two transactions."""

    @property
    def lease(self) -> timedelta:
        """Time after which another process may send to the endpoint of one that died."""
        return self.timeout + self.lease_margin


class Result(Enum):
    """The meaning of a response, or of its absence."""

    ACKNOWLEDGED = "acknowledged"
    GONE = "gone"
    """The endpoint wants no more messages."""
    REFUSED = "refused"
    """The endpoint works, and refuses this message: others are sent meanwhile."""
    UNAVAILABLE = "unavailable"
    """The endpoint itself fails: nothing is sent to it for a while."""


_OK: Final = range(200, 300)
_CLIENT_ERROR: Final = range(400, 500)
_GONE: Final = 410
_THROTTLED: Final = frozenset({401, 403, 404, 407, 408, 421, 425, 429})
"""Client errors that concern the endpoint or the time, and not the one message."""


def result_of(status: int) -> Result:
    """The meaning of an HTTP status (Standard Webhooks 1.0.0, "Delivery success and failure")."""
    if status in _OK:
        return Result.ACKNOWLEDGED
    if status == _GONE:
        return Result.GONE
    if status in _CLIENT_ERROR and status not in _THROTTLED:
        return Result.REFUSED
    return Result.UNAVAILABLE


def delay_after(failures: int, longest: timedelta, chance: float) -> timedelta:
    """The delay after `failures` (1 or more) failed attempts; `chance` from 0 to 1 determines the jitter."""
    factor: int = FACTOR ** min(max(failures - 1, 0), 10)
    delay = min(FIRST_DELAY * factor, longest)
    return delay * (1 - JITTER + 2 * JITTER * chance)


def retry_after(header: str | None) -> timedelta:
    """The pause that the header `Retry-After` asks for in seconds, at most an hour; zero for any other text."""
    text = (header or "").strip()
    if not (text.isascii() and text.isdigit()):
        return timedelta(0)
    return min(timedelta(seconds=min(int(text[:9]), 10**8)), LONGEST_RETRY_AFTER)
