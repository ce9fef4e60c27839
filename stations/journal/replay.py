# SPDX-License-Identifier: Apache-2.0
"""How far the events are that were held while nothing could be reached: told now and then, and at the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stations.journal.events import Entry, Journal

BETWEEN_LOOKS: Final = 1.0
"""Seconds."""


@dataclass(frozen=True)
class Progress:
    """Of held events, how many have their answer."""

    total: int
    answered: int
    exceptions: tuple[Entry, ...] = ()
    """At the end: held events of this or an earlier replay that were refused and that nobody has seen to."""

    @property
    def is_over(self) -> bool:
        """Whether all have theirs."""
        return self.answered >= self.total


class ReplayProgressTracker:
    """Watches a journal while what it holds goes out. Not for two threads at once."""

    def __init__(self, journal: Journal, tell: Callable[[Progress], None]) -> None:
        self._journal = journal
        self._tell = tell
        self._total = 0
        self._last = 0
        self._told = -1
        self._looked_at = float("-inf")

    @property
    def total(self) -> int:
        """How many held events go out just now, answered or not; 0 when none do."""
        return self._total

    def begin(self) -> None:
        """Count what is held: from now on it goes out."""
        self._total, self._last = self._journal.held()
        self._told = -1

    def look(self) -> None:
        """Tell what is new, at most once a second. Call it only while the broker is in reach."""
        if not self._total or time.monotonic() - self._looked_at < BETWEEN_LOOKS:
            return
        self._looked_at = time.monotonic()
        left, _ = self._journal.held(self._last)
        answered = self._total - left
        if answered == self._told:
            return
        self._told = answered
        progress = Progress(self._total, answered, tuple(self._journal.exceptions()) if not left else ())
        if progress.is_over:
            self._total = 0
        self._tell(progress)
