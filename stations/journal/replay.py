# SPDX-License-Identifier: Apache-2.0
"""Count the replies to held events while they are sent, and report the progress at most once a second."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stations.journal.events import Entry, Journal

POLL_INTERVAL_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Progress:
    """The number of held events, and how many of them have a reply."""

    total: int
    replied: int
    exceptions: tuple[Entry, ...] = ()
    """At the end: refused held events of this or an earlier replay that staff have not acknowledged."""

    @property
    def is_complete(self) -> bool:
        """True when every held event has a reply."""
        return self.replied >= self.total


class ReplayProgressTracker:
    """Counts the replies to a journal's held events. Not thread-safe."""

    def __init__(self, journal: Journal, on_progress: Callable[[Progress], None]) -> None:
        self._journal = journal
        self._on_progress = on_progress
        self._total = 0
        self._last_sequence = 0
        self._reported = -1
        self._polled_at = float("-inf")

    @property
    def total(self) -> int:
        """Number of held events in the current replay, with or without a reply; 0 without a replay."""
        return self._total

    def start(self) -> None:
        """Start a replay: count the held events."""
        self._total, self._last_sequence = self._journal.count_held()
        self._reported = -1

    def poll(self) -> None:
        """Report progress since the last report, at most once a second. Call only while the broker is reachable."""
        if not self._total or time.monotonic() - self._polled_at < POLL_INTERVAL_SECONDS:
            return
        self._polled_at = time.monotonic()
        left, _ = self._journal.count_held(self._last_sequence)
        replied = self._total - left
        if replied == self._reported:
            return
        self._reported = replied
        progress = Progress(self._total, replied, tuple(self._journal.exceptions()) if not left else ())
        if progress.is_complete:
            self._total = 0
        self._on_progress(progress)
