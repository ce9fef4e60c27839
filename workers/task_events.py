# SPDX-License-Identifier: Apache-2.0
"""Custom task events beside Celery's: Flower shows them as live states of the running task."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from celery import current_task
from kombu import Connection

log = structlog.get_logger()

PAUSE_AFTER_ERROR: Final = 30.0
"""How long no event is sent after the broker did not accept one, in seconds: monitoring must not slow the work."""


class TaskEventPublisher:
    """A `tasks.ports.TaskEventEmitter`: sends `task-<name>` for the running task; outside a task it does nothing.

    `connect` returns a connection that fails at once when the broker is unavailable; each thread has its own.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._local = threading.local()
        self._paused_until = 0.0

    def __call__(self, name: str, **fields: str) -> None:
        """Send the event; discard it when it cannot be sent."""
        task = current_task
        if not task or task.request.id is None or time.monotonic() < self._paused_until:
            return
        try:
            self._dispatcher(task).send(f"task-{name}", uuid=task.request.id, **fields)
        except Exception as error:  # noqa: BLE001 - any error of the transport: no function depends on the event
            self._paused_until = time.monotonic() + PAUSE_AFTER_ERROR
            self._disconnect()
            log.debug("event_not_sent", error=type(error).__name__)

    def _dispatcher(self, task: Any) -> Any:
        if not hasattr(self._local, "dispatcher"):
            connection = self._connect()
            self._local.connection = connection
            self._local.dispatcher = task.app.events.Dispatcher(
                connection,
                hostname=task.request.hostname,
                channel=connection.default_channel,
                buffer_while_offline=False,
            )
        return self._local.dispatcher

    def _disconnect(self) -> None:
        connection: Connection | None = getattr(self._local, "connection", None)
        self._local.__dict__.clear()
        if connection is not None:
            connection.release()
