# SPDX-License-Identifier: Apache-2.0
"""The validity of a station's keys in time. Pure."""

from datetime import datetime, timedelta
from typing import Final

DEFAULT_OVERLAP: Final = timedelta(hours=72)
"""Time after a rotation in which the previous key is valid: a long weekend."""
MAX_OVERLAP: Final = timedelta(days=30)


def previous_key_at(now: datetime, previous_key: str | None, valid_until: datetime | None) -> str | None:
    """The previous key of a station if it is still valid at `now`, `None` otherwise. The end itself is not valid."""
    return previous_key if valid_until is not None and now < valid_until else None
