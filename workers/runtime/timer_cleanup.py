# SPDX-License-Identifier: Apache-2.0
"""Time limits of jobs that are done: Celery calls them off, and kombu's timer keeps them until their time has come.

After many scans the loop would wake for each of them, for as long as a job may take, and hold its job's memory for so long.
"""

import heapq
from typing import Any, Final

from celery import bootsteps
from kombu.asynchronous.timer import Timer

FORGET_SECONDS: Final = 5.0


class TimerCleanup(bootsteps.StartStopStep):
    """A step of the worker that forgets, now and then, what was called off."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._entry: Any = None

    def start(self, parent: Any) -> None:
        """Begin, in a worker whose loop has such a timer; pools of threads have another, and no time limits."""
        if isinstance(parent.timer, Timer):
            self._entry = parent.timer.call_repeatedly(FORGET_SECONDS, forget, (parent.timer,), priority=10)

    def close(self, parent: Any) -> None:
        """Called before anything ends: while the pool does, Celery fires the timers in another thread."""
        if self._entry is not None:
            self._entry.cancel()


def forget(timer: Timer) -> None:
    """Take out of `timer` what was called off. To be called by the loop whose timer it is."""
    waiting = timer._queue  # noqa: SLF001 - it has no way of its own; the loop holds this very list
    waiting[:] = [each for each in waiting if not each.entry.canceled]
    heapq.heapify(waiting)
