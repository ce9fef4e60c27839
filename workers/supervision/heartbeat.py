# SPDX-License-Identifier: Apache-2.0
"""The heartbeat file, which a worker touches every few seconds while its event loop runs. A check needs no broker.

A supervisor that started the worker is notified of each heartbeat as well, if it has set `NOTIFY_SOCKET`.
"""

import os
import stat
import time
from pathlib import Path
from typing import Any

from celery import bootsteps

from schemas.private_files import private_folder, runtime_folder, touch_private
from workers.settings import WorkerSettings
from workers.supervision import systemd_notify
from workers.supervision.node_name import file_name

BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
"""A file older than this belongs to a worker that hangs or is dead."""


def heartbeat_file(settings: WorkerSettings, worker: str) -> Path:
    """Return the path of the heartbeat file of `worker`: its node name, or its role."""
    return settings.heartbeat_file or runtime_folder() / f"{file_name(worker)}.heartbeat"


def heartbeat_files(settings: WorkerSettings, role: str) -> list[Path]:
    """Return the heartbeat files of all workers of `role` on this machine; the file of the first one may not exist."""
    if settings.heartbeat_file is not None:
        return [settings.heartbeat_file]
    return sorted(runtime_folder().glob(f"{role}*.heartbeat")) or [heartbeat_file(settings, role)]


def prepare(path: Path) -> None:
    """Create the folder of the default path, and verify that nothing of another user is at `path`.

    Raises `UnsafePathError` for a folder or file of another user, and for a symbolic link.
    """
    if path.parent == runtime_folder():
        private_folder(path.parent)
    if os.path.lexists(path):
        touch_private(path)


def age(path: Path) -> float | None:
    """Return the seconds since the last heartbeat; `None` if there is no file. A symbolic link does not count as one."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return max(0.0, time.time() - status.st_mtime) if stat.S_ISREG(status.st_mode) else None


class Heartbeat(bootsteps.StartStopStep):
    """A bootstep of the worker that emits heartbeats from the worker's own timer."""

    requires = ("celery.worker.components:Timer",)
    path: Path = Path("bookdrop.heartbeat")
    """Set before the start."""
    worker_pid: int | None = None
    """Process id of the worker that emits heartbeats; a forked child inherits the value and emits none."""

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._entry: Any = None

    def start(self, parent: Any) -> None:
        """Emit the first heartbeat, and start the timer."""
        prepare(Heartbeat.path)
        Heartbeat.worker_pid = os.getpid()
        beat()
        systemd_notify.notify(systemd_notify.READY)
        self._entry = parent.timer.call_repeatedly(BEAT_SECONDS, beat, priority=10)

    def stop(self, parent: Any) -> None:
        """Delete the file, so that a worker that has stopped in order is not reported as hanging."""
        if self._entry is not None:
            self._entry.cancel()
        Heartbeat.worker_pid = None
        systemd_notify.notify(systemd_notify.STOPPING)
        self.path.unlink(missing_ok=True)


def beat() -> None:
    """Emit a heartbeat if this process is the worker; do nothing in other processes."""
    if Heartbeat.worker_pid == os.getpid():
        touch_private(Heartbeat.path)
        systemd_notify.notify(systemd_notify.WATCHDOG)
