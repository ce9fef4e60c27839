# SPDX-License-Identifier: Apache-2.0
"""What a desk says of its own journal before anybody scans: that the next scan would not be taken, or that none is answered."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from stations import messages
from stations.journal.events import Journal, JournalStats

BETWEEN_LOOKS: Final = 5.0
BETWEEN_WARNINGS: Final = 3600.0
"""Seconds."""


class JournalWatch:
    """Looks at a journal now and then. Not for two threads at once."""

    def __init__(self, journal: Journal, offline_after: timedelta, now: Callable[[], datetime]) -> None:
        self._journal = journal
        self._offline_after = offline_after
        self._now = now
        self._has_obstacle = False
        self._looked_at = self._warned_at = float("-inf")

    def look(self) -> list[messages.ScreenMessage]:
        """What is new. Raises `JournalError` when it cannot even be read."""
        clock = time.monotonic()
        if clock - self._looked_at < BETWEEN_LOOKS:
            return []
        self._looked_at = clock
        told: list[messages.ScreenMessage] = []
        write_blocker = self._journal.write_blocker()
        if write_blocker is not None and not self._has_obstacle:
            told.append(messages.write_blocker(write_blocker))
        elif write_blocker is None and self._has_obstacle:
            told.append(messages.ScreenMessage(("Scans are taken again.",)))
        self._has_obstacle = write_blocker is not None
        late = is_offline(self._journal.standing(), self._now(), self._offline_after)
        if late is not None and clock - self._warned_at >= BETWEEN_WARNINGS:
            self._warned_at = clock
            told.append(messages.offline(late))
        elif late is None:
            self._warned_at = float("-inf")
        return told


def is_offline(standing: JournalStats, now: datetime, after: timedelta) -> JournalStats | None:
    """The standing, when its oldest unanswered event has waited for longer than `after`."""
    return standing if standing.oldest is not None and now - standing.oldest > after else None
