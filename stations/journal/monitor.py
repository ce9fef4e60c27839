# SPDX-License-Identifier: Apache-2.0
"""What a desk says of its own journal before anybody scans: that the next scan would not be taken, or that none is answered."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from stations import messages
from stations.journal.events import Journal, JournalStats

POLL_INTERVAL_SECONDS: Final = 5.0
WARNING_INTERVAL_SECONDS: Final = 3600.0
"""Seconds."""


class JournalMonitor:
    """Looks at a journal now and then. Not for two threads at once."""

    def __init__(self, journal: Journal, warning_after: timedelta, now: Callable[[], datetime]) -> None:
        self._journal = journal
        self._warning_after = warning_after
        self._now = now
        self._is_blocked = False
        self._polled_at = self._warned_at = float("-inf")

    def poll(self) -> list[messages.ScreenMessage]:
        """What is new. Raises `JournalError` when it cannot even be read."""
        clock = time.monotonic()
        if clock - self._polled_at < POLL_INTERVAL_SECONDS:
            return []
        self._polled_at = clock
        warnings: list[messages.ScreenMessage] = []
        write_blocker = self._journal.write_blocker()
        if write_blocker is not None and not self._is_blocked:
            warnings.append(messages.write_blocker(write_blocker))
        elif write_blocker is None and self._is_blocked:
            warnings.append(messages.ScreenMessage(("Scans are taken again.",)))
        self._is_blocked = write_blocker is not None
        late = overdue_replies(self._journal.stats(), self._now(), self._warning_after)
        if late is not None and clock - self._warned_at >= WARNING_INTERVAL_SECONDS:
            self._warned_at = clock
            warnings.append(messages.replies_overdue(late))
        elif late is None:
            self._warned_at = float("-inf")
        return warnings


def overdue_replies(stats: JournalStats, now: datetime, after: timedelta) -> JournalStats | None:
    """The stats, when its oldest unanswered event has waited for longer than `after`."""
    return stats if stats.oldest is not None and now - stats.oldest > after else None
