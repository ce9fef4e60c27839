# SPDX-License-Identifier: Apache-2.0
"""A clock for tests."""

from dataclasses import dataclass
from datetime import datetime


@dataclass
class Clock:
    """A clock that shows the time that a test sets."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now
