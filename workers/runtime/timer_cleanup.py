# SPDX-License-Identifier: Apache-2.0
"""Remove cancelled time-limit timers; kombu keeps them until they would have fired.

Celery starts a timer for the time limit of each job and cancels it when the job is done. After many scans the event loop
would wake for each cancelled timer. Each would hold its job's memory until the time limit.
"""

import heapq
from typing import Any, Final

from celery import bootsteps
from kombu.asynchronous.timer import Timer

CLEANUP_SECONDS: Final = 5.0
"""Interval between two cleanups, in seconds."""


class TimerCleanup(bootsteps.StartStopStep):
    """A bootstep of the worker that removes cancelled timers at intervals."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._entry: Any = None

    def start(self, parent: Any) -> None:
        """Start, if the worker's loop has a kombu timer. Thread pools have another timer, and no time limits."""
        if isinstance(parent.timer, Timer):
            self._entry = parent.timer.call_repeatedly(CLEANUP_SECONDS, remove_cancelled, (parent.timer,), priority=10)

    def close(self, parent: Any) -> None:
        """Stop before any other part of the worker: while the pool stops, Celery fires the timers in another thread."""
        if self._entry is not None:
            self._entry.cancel()


def remove_cancelled(timer: Timer) -> None:
    """Remove cancelled entries from `timer`. Call it in the event loop that owns the timer."""
    queue = timer._queue  # noqa: SLF001 - kombu has no public method; the loop holds this very list
    queue[:] = [item for item in queue if not item.entry.canceled]
    heapq.heapify(queue)
