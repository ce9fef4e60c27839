# SPDX-License-Identifier: Apache-2.0
"""Warns before a scan would be rejected, or when replies are overdue."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from stations.journal.events import Journal, JournalStats

POLL_INTERVAL_SECONDS: Final = 5.0
OVERDUE_INTERVAL_SECONDS: Final = 3600.0
"""Minimum time between two warnings about overdue replies."""


@dataclass(frozen=True)
class WritesBlocked:
    """The next scan would be rejected."""

    reason: str


@dataclass(frozen=True)
class WritesResumed:
    """Scans are accepted again."""


@dataclass(frozen=True)
class RepliesOverdue:
    """The oldest unanswered event exceeds the warning limit."""

    stats: JournalStats


JournalNotice = WritesBlocked | WritesResumed | RepliesOverdue
"""A change in a journal's condition that staff must know before the next scan."""


class JournalMonitor:
    """Polls a journal and reports changes as values; the caller formats them. Not thread-safe."""

    def __init__(self, journal: Journal, warning_after: timedelta, now: Callable[[], datetime]) -> None:
        self._journal = journal
        self._warning_after = warning_after
        self._now = now
        self._is_blocked = False
        self._polled_at = self._warned_at = float("-inf")

    def poll(self) -> list[JournalNotice]:
        """Return what changed since the last poll; nothing within `POLL_INTERVAL_SECONDS` of it.

        Raises `JournalError` when the journal cannot be read.
        """
        clock = time.monotonic()
        if clock - self._polled_at < POLL_INTERVAL_SECONDS:
            return []
        self._polled_at = clock
        notices: list[JournalNotice] = []
        blocker = self._journal.write_blocker()
        if blocker is not None and not self._is_blocked:
            notices.append(WritesBlocked(blocker))
        elif blocker is None and self._is_blocked:
            notices.append(WritesResumed())
        self._is_blocked = blocker is not None
        stats = self._journal.stats()
        if not stats.is_overdue(self._now(), self._warning_after):
            self._warned_at = float("-inf")
        elif clock - self._warned_at >= OVERDUE_INTERVAL_SECONDS:
            self._warned_at = clock
            notices.append(RepliesOverdue(stats))
        return notices
