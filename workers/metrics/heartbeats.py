# SPDX-License-Identifier: Apache-2.0
"""Listening for the heartbeats that workers send over the broker, on any machine, for as long as the exporter runs."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from kombu import Connection

ALIVE_SECONDS: Final = 30.0
"""A worker is heard of every two seconds; one that was not for so long does not answer."""
FORGOTTEN_SECONDS: Final = 600.0
ROLES: Final = ("returns", "printing", "housekeeping")


@dataclass(frozen=True)
class Heard:
    """A worker that was heard of and did not say goodbye."""

    role: str
    worker: str
    age: float
    """Seconds since it was last heard of."""


def role_of(worker: str) -> str:
    """Role of a worker from its name, such as `printing` from `printing-main@host`; `other` for other workers."""
    role = worker.partition("@")[0].partition("-")[0]
    return role if role in ROLES else "other"


class Listener:
    """Keeps when each worker was last heard of. `start` begins a thread, which connects anew when it must."""

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
        """Listen from now on; ends with the process."""
        threading.Thread(target=self._listen, name="bookdrop-heartbeats", daemon=True).start()

    def heard(self) -> list[Heard]:
        """The workers that are known, those forgotten left out."""
        now = self._clock()
        with self._lock:
            self._last = {worker: at for worker, at in self._last.items() if now - at < FORGOTTEN_SECONDS}
            last = dict(self._last)
        return [Heard(role_of(worker), worker, now - at) for worker, at in sorted(last.items())]

    def take(self, event: dict[str, Any]) -> None:
        """Take one event of a worker's."""
        worker = str(event.get("hostname"))
        with self._lock:
            if event.get("type") == "worker-offline":
                self._last.pop(worker, None)
            else:
                self._last[worker] = self._clock()

    def _listen(self) -> None:
        while True:
            try:
                with self._connect() as connection:
                    connection.ensure_connection(max_retries=1, timeout=5)
                    # Of all events only those of workers: a drain's thousands are not for us.
                    receiver = self._app.events.Receiver(connection, handlers={"*": self.take}, routing_key="worker.#")
                    self.is_connected = True
                    receiver.capture(limit=None, timeout=None, wakeup=True)
            except Exception:  # noqa: BLE001 - whatever the transport raises: anew, after a moment
                self.is_connected = False
            time.sleep(1.0)
