# SPDX-License-Identifier: Apache-2.0
"""Receive the heartbeats that workers on any machine send over the broker, while the exporter runs."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from kombu import Connection

from schemas.external_text import one_line
from workers.runtime.event_receiver import TolerantEventReceiver

ALIVE_SECONDS: Final = 30.0
"""Workers send a heartbeat every two seconds. One without a heartbeat for this long counts as unresponsive."""
DISCARD_SECONDS: Final = 600.0
"""A worker without a heartbeat for this long is discarded."""
MAX_WORKERS: Final = 500
"""Names of workers that are kept. Senders choose the names; a further one is ignored until another is discarded."""
MAX_NAME_LENGTH: Final = 200
"""Characters of a worker's name that are kept."""
ROLES: Final = ("returns", "printing", "housekeeping")


@dataclass(frozen=True)
class WorkerHeartbeat:
    """The last heartbeat of a worker that has not sent `worker-offline`."""

    role: str
    worker: str
    age: float
    """Seconds since the last heartbeat."""


def role_of(worker: str) -> str:
    """Return the role in a worker's name, for example `printing` for `printing-main@host`; `other` if there is none."""
    role = worker.partition("@")[0].partition("-")[0]
    return role if role in ROLES else "other"


class HeartbeatReceiver:
    """The time of each worker's last heartbeat. `start` begins a thread, which reconnects after an error."""

    def __init__(
        self, app: Celery, connect: Callable[[], Connection], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._connect = connect
        self._clock = clock
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()
        self.is_connected = False

    def start(self) -> None:
        """Start the thread, which ends with the process."""
        threading.Thread(target=self._run, name="bookdrop-heartbeats", daemon=True).start()

    def heartbeats(self) -> list[WorkerHeartbeat]:
        """Return the last heartbeat of each worker, and discard old ones."""
        now = self._clock()
        with self._lock:
            self._last = {worker: at for worker, at in self._last.items() if now - at < DISCARD_SECONDS}
            last = dict(self._last)
        return [WorkerHeartbeat(role_of(worker), worker, now - at) for worker, at in sorted(last.items())]

    def handle(self, event: dict[str, Any]) -> None:
        """Process one worker event."""
        worker = one_line(str(event.get("hostname")), MAX_NAME_LENGTH)
        with self._lock:
            if event.get("type") == "worker-offline":
                self._last.pop(worker, None)
            elif worker in self._last or len(self._last) < MAX_WORKERS:
                self._last[worker] = self._clock()

    def _run(self) -> None:
        while True:
            try:
                with self._connect() as connection:
                    connection.ensure_connection(max_retries=1, timeout=5)
                    # Worker events only: a busy period sends thousands of task events.
                    receiver = TolerantEventReceiver(
                        connection, handlers={"*": self.handle}, routing_key="worker.#", app=self._app
                    )
                    self.is_connected = True
                    # Without `wakeup`, a command by remote control: workers send a heartbeat every two seconds.
                    receiver.capture(limit=None, timeout=None, wakeup=False)
            except Exception:  # noqa: BLE001 - any error of the transport: reconnect after a pause
                self.is_connected = False
            time.sleep(1.0)
