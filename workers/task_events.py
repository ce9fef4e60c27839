# SPDX-License-Identifier: Apache-2.0
"""Events of our own beside Celery's: Flower shows them as live states of the task that is at work."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from celery import current_task
from kombu import Connection

log = structlog.get_logger()

SILENCE: Final = 30.0
"""How long nothing is announced after the broker did not take it, in seconds: watching must not slow the work."""


class TaskAnnouncer:
    """A `tasks.context.Announcer`: sends `task-<what>` for the task that runs; outside a task it says nothing.

    `connect` gives a connection that is told at once when the broker is away; there is one for each thread.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._local = threading.local()
        self._silent_until = 0.0

    def __call__(self, what: str, **about: str) -> None:
        """Send it; what cannot be sent is not missed."""
        task = current_task
        if not task or task.request.id is None or time.monotonic() < self._silent_until:
            return
        try:
            self._dispatcher(task).send(f"task-{what}", uuid=task.request.id, **about)
        except Exception as error:  # noqa: BLE001 - whatever the transport raises: nobody depends on it
            self._silent_until = time.monotonic() + SILENCE
            self._let_go()
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

    def _let_go(self) -> None:
        connection: Connection | None = getattr(self._local, "connection", None)
        self._local.__dict__.clear()
        if connection is not None:
            connection.release()
