# SPDX-License-Identifier: Apache-2.0
"""The Celery side of an event: a task that processes one event, and how Celery and Flower show it: by its id alone."""

from typing import Any, Final

import structlog
from celery import Task
from celery.worker.request import Request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from schemas import station_status
from tasks.context import current
from tasks.events.handler import EventHandler
from tasks.events.processing import commit, commit_failure, publish
from tasks.quarantine.rejection import Received
from tasks.requeue import requeue, requeue_after_backoff
from tasks.unit_of_work import StaleStateError

log = structlog.get_logger()

MAX_FAILURES: Final = 3
"""Attempts at an event whose processing raises an error; then it is quarantined."""


class EventRequest(Request):
    """A request whose arguments are shown as the event's id: a scanned card or a note stays out of sight."""

    @property
    def argsrepr(self) -> str:
        """The event id, as arguments."""
        return repr((self.id,))

    @property
    def kwargsrepr(self) -> str:
        """Nothing."""
        return "{}"

    def info(self, safe: bool = False) -> Any:
        """The request as remote control shows it: never its real arguments."""
        return {**super().info(safe=True), "args": [self.id], "kwargs": {}}


class EventTask(Task[Any, Any]):
    """A task that takes an event. Its message stays reduced to the id when it is published again."""

    Request = "tasks.events.event_task:EventRequest"
    default_retry_delay = 0
    max_retries = None

    def signature_from_request(self, request: Any = None, *args: Any, **options: Any) -> Any:
        """The message of a retry; Celery would write its arguments out in the headers."""
        request = request or self.request
        return super().signature_from_request(request, *args, argsrepr=repr((request.id,)), kwargsrepr="{}", **options)

    def process(self, payload: object, handler: EventHandler[Any]) -> str:
        """Process one event and return its outcome. Raises only what requeues the task."""
        request = self.request
        received = Received(payload, request.reply_to, self.name, request.id, request.get(station_status.HEADER))
        try:
            committed = commit([received], handler, current())
        except (DBAPIError, PoolTimeoutError, StaleStateError) as error:
            raise requeue_after_backoff(self, error, log_event="event_requeued") from error
        except Exception as error:
            log.exception("event_failed", error=type(error).__name__)
            if request.retries + 1 < MAX_FAILURES:
                raise requeue(self, error) from error
            committed = commit_failure(received, error, current())
        return publish(committed, current()).outcomes([received])[0]
