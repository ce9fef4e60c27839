# SPDX-License-Identifier: Apache-2.0
"""How far the events are that were held while nothing could be reached: told now and then, and at the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stations.journal.events import Entry, Journal

POLL_INTERVAL_SECONDS: Final = 1.0
"""Seconds."""


@dataclass(frozen=True)
class Progress:
    """Of held events, how many have their answer."""

    total: int
    answered: int
    exceptions: tuple[Entry, ...] = ()
    """At the end: held events of this or an earlier replay that were refused and that nobody has seen to."""

    @property
    def is_complete(self) -> bool:
        """Whether all have theirs."""
        return self.answered >= self.total


class ReplayProgressTracker:
    """Watches a journal while what it holds goes out. Not for two threads at once."""

    def __init__(self, journal: Journal, on_progress: Callable[[Progress], None]) -> None:
        self._journal = journal
        self._on_progress = on_progress
        self._total = 0
        self._last_sequence = 0
        self._reported = -1
        self._polled_at = float("-inf")

    @property
    def total(self) -> int:
        """How many held events go out just now, answered or not; 0 when none do."""
        return self._total

    def start(self) -> None:
        """Count what is held: from now on it goes out."""
        self._total, self._last_sequence = self._journal.count_held()
        self._reported = -1

    def poll(self) -> None:
        """Tell what is new, at most once a second. Call it only while the broker is in reach."""
        if not self._total or time.monotonic() - self._polled_at < POLL_INTERVAL_SECONDS:
            return
        self._polled_at = time.monotonic()
        left, _ = self._journal.count_held(self._last_sequence)
        answered = self._total - left
        if answered == self._reported:
            return
        self._reported = answered
        progress = Progress(self._total, answered, tuple(self._journal.exceptions()) if not left else ())
        if progress.is_complete:
            self._total = 0
        self._on_progress(progress)
