# SPDX-License-Identifier: Apache-2.0
"""The heartbeat file: a worker whose main loop turns touches it every few seconds. No broker is needed to look.

The supervisor that started the worker hears of each beat as well, if it wants to.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from celery import bootsteps

from workers import systemd_notify
from workers.settings import WorkerSettings

BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
"""A file older than this belongs to a worker that hangs or is gone."""


def heartbeat_file(settings: WorkerSettings, role: str) -> Path:
    """Where the worker of `role` leaves its heartbeat."""
    return settings.heartbeat_file or Path(tempfile.gettempdir()) / f"bookdrop-{role.replace(' ', '-')}.heartbeat"


def age(path: Path) -> float | None:
    """Seconds since the last beat; `None` when there was none."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return None


class Heartbeat(bootsteps.StartStopStep):
    """A step of the worker that touches the heartbeat file from the worker's own timer."""

    requires = ("celery.worker.components:Timer",)
    path: Path = Path(tempfile.gettempdir()) / "bookdrop.heartbeat"
    beating: int | None = None
    """Process id of the worker whose heart beats here; a forked child's does not."""

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._entry: Any = None

    def start(self, parent: Any) -> None:
        """Beat now, and from now on."""
        Heartbeat.beating = os.getpid()
        beat()
        systemd_notify.notify(systemd_notify.READY)
        self._entry = parent.timer.call_repeatedly(BEAT_SECONDS, beat, priority=10)

    def stop(self, parent: Any) -> None:
        """Take the file away: a worker that ended well is not one that hangs."""
        if self._entry is not None:
            self._entry.cancel()
        Heartbeat.beating = None
        systemd_notify.notify(systemd_notify.STOPPING)
        self.path.unlink(missing_ok=True)


def beat() -> None:
    """Say that the worker's main process goes on; nothing, when none runs in this process."""
    if Heartbeat.beating == os.getpid():
        Heartbeat.path.touch()
        systemd_notify.notify(systemd_notify.WATCHDOG)
