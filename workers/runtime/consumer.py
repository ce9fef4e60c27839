# SPDX-License-Identifier: Apache-2.0
"""Celery's consumer, which loses no message that it cannot do: it goes among the dead letters, and the worker lives.

Celery drops what it cannot read and what it does not know, and writes all of it into the log. A message whose parts have
the wrong types it does not expect: that ends the worker.
"""

from collections.abc import Callable
from logging import getLogger
from typing import Any

import structlog

from workers.runtime.event_dispatcher import NonBlockingConsumer
from workers.runtime.pool_drain import drain_job_acceptance

log = structlog.get_logger()


class Consumer(NonBlockingConsumer):
    """A consumer that rejects what it cannot do. On RabbitMQ, and with our transport on Redis, that is kept."""

    controller: Any

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """What is done with each message."""
        handle = super().create_task_handler(*args, **options)

        def on_task_received(message: Any) -> Any:
            wrong = self._defect(message)
            if wrong is not None:
                return self._put_aside(message, wrong)
            try:
                return handle(message)
            except (TypeError, ValueError, LookupError, AttributeError) as error:  # a header that nobody looked at
                return self._put_aside(message, type(error).__name__)

        return on_task_received

    def on_close(self) -> None:
        """Called when the connection is let go of: what has begun is done, all else the broker gives to somebody."""
        if self.controller.semaphore:
            self.controller.semaphore.clear()  # nothing more begins
        drain_job_acceptance(self.pool, self.hub)
        super().on_close()

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Called for what is no task message."""
        self._put_aside(message, "not_a_task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Called for a task that this worker does not know."""
        self._put_aside(message, "unknown_task")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Called for a task message that cannot be right."""
        self._put_aside(message, type(exc).__name__)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Called for what cannot be decoded."""
        self._put_aside(message, type(exc).__name__)

    def _defect(self, message: Any) -> str | None:
        """What is wrong with a message, if anything: it must be a task message of protocol 2 with fitting arguments."""
        try:
            payload = message.payload
        except Exception as error:  # noqa: BLE001 - whatever decoding raises, it cannot be read
            return type(error).__name__
        match message.headers, payload:
            case ({"task": str(name), "id": str()} as headers, [list() as args, dict() as kwargs, dict() | None]):
                task: Any = self.app.tasks.get(name)
            case _:
                return "not_a_task"
        if task is None or type(headers.get("retries") or 0) is not int:
            return "unknown_task" if task is None else "not_a_task"
        try:
            task.__header__(*args, **kwargs)
        except TypeError:
            return "other_arguments"
        return None

    def _put_aside(self, message: Any, reason: str) -> None:
        if message.acknowledged:
            return
        queue = (message.delivery_info or {}).get("routing_key")
        headers = message.headers if isinstance(message.headers, dict) else {}
        task_id = headers.get("id")
        log.error("message_rejected", reason=reason, queue=queue, task_id=task_id if isinstance(task_id, str) else None)
        message.reject_log_error(getLogger(__name__), self.connection_errors)
