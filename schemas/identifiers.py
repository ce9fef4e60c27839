# SPDX-License-Identifier: Apache-2.0
"""Time stored in an event id."""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_BASED: Final = 7


def uuid7_time(event_id: UUID) -> datetime | None:
    """Time at which a UUIDv7 was generated, to the millisecond, by its generator's clock.

    The first 48 bits are milliseconds since 1970 (RFC 9562, section 5.7). Returns `None` for any other UUID, and for a
    time after the year 9999, which `datetime` cannot hold. The id comes from outside, so any number is possible.
    """
    if event_id.version != _TIME_BASED:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=event_id.int >> 80)
    except OverflowError:
        return None
