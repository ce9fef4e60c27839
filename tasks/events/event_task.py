# SPDX-License-Identifier: Apache-2.0
"""How an event looks to Celery and Flower: by its id alone, whatever its arguments hold."""

from typing import Any

from celery import Task
from celery.worker.request import Request


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
        """What remote control tells of the request: never its real arguments."""
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
