# SPDX-License-Identifier: Apache-2.0
"""Warns before a scan would be rejected, or when replies are overdue."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from stations.journal.events import Journal, JournalStats
from stations.journal.file import JournalError
from stations.journal.rejected_messages import RejectedMessages, rejected_messages

POLL_INTERVAL_SECONDS: Final = 5.0
OVERDUE_INTERVAL_SECONDS: Final = 3600.0
"""Minimum time between two warnings about overdue replies."""
REJECTED_INTERVAL_SECONDS: Final = 3600.0
"""Minimum time between two warnings about ignored messages."""


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


@dataclass(frozen=True)
class MessagesRejected:
    """The station ignored messages that are not signed for it."""

    rejected: RejectedMessages


JournalNotice = WritesBlocked | WritesResumed | RepliesOverdue | MessagesRejected
"""A change in a journal's condition that staff must know before the next scan."""


class JournalMonitor:
    """Polls a journal and reports changes as values; the caller formats them. Not thread-safe."""

    def __init__(self, journal: Journal, warning_after: timedelta, now: Callable[[], datetime]) -> None:
        self._journal = journal
        self._warning_after = warning_after
        self._now = now
        self._is_blocked = False
        self._polled_at = self._warned_at = self._rejected_at = float("-inf")
        self._rejected = 0
        with contextlib.suppress(JournalError):  # the next poll reports it
            self._rejected = rejected_messages(journal).count

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
        rejected = rejected_messages(self._journal)
        if rejected.count > self._rejected and clock - self._rejected_at >= REJECTED_INTERVAL_SECONDS:
            self._rejected, self._rejected_at = rejected.count, clock
            notices.append(MessagesRejected(rejected))
        return notices
