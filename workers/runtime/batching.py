# SPDX-License-Identifier: Apache-2.0
"""Batch while busy: with a free process an event runs at once; with none, events gather and go as one job.

A Celery task strategy (see "Task message handler" in Celery's documentation of extensions). It takes over a message
only when nothing about it is unusual; everything else goes Celery's own way:

- A lone event that finds a free process is handed to it by Celery's own request, at once. No timer, no waiting.
- While all processes are busy, events gather. The process that gets free takes up to `LARGEST` of them as one pool job,
  in one transaction. Acknowledgement, state and monitoring events stay those of each single event.
- A job that fails as a whole, whose process dies, or that runs into its time limit is done again one by one, Celery's
  own way: only the culprit fails. What had been committed is answered from the inbox.
- When the connection to the broker is lost, or the worker ends, gathered events go back with everything else that is
  not acknowledged.
"""

from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

import structlog
from billiard.einfo import ExceptionInfo
from celery import signals
from celery.worker import state, strategy
from celery.worker.request import create_request_cls  # type: ignore[attr-defined]  # missing in its stubs
from kombu.utils.imports import symbol_by_name

from schemas.station_status import HEADER
from tasks import context
from tasks.events.processing import process
from tasks.handlers import BATCH_HANDLERS
from tasks.quarantine.rejection import Received

log = structlog.get_logger()

LARGEST: Final = 50
"""How many events one transaction takes at most."""
EVENTS_AT_ONCE: Final = 200
"""How many monitoring events go to the broker in one message at most; each turn of the loop sends what there is."""

Call = tuple[str, object, str | None, object]
"""What a process needs of an event: its task's id, the event, where to answer, and what its desk says beside it."""


def gather(task: Any, app: Any, consumer: Any, **_: Any) -> Callable[..., Any]:
    """The strategy: what a worker's consumer does with each message for `task`."""
    as_ever = strategy.default(task, app, consumer)
    controller = consumer.controller
    if consumer.hub is None or not (controller.pool.uses_semaphore or _is_solo(controller.pool)):
        return as_ever
    if consumer.event_dispatcher is not None:
        consumer.event_dispatcher.buffer_limit = max(consumer.event_dispatcher.buffer_limit, EVENTS_AT_ONCE)
    gathering = EventBatcher(task, consumer)
    request_of = create_request_cls(
        symbol_by_name(task.Request), task, consumer.pool, consumer.hostname, consumer.event_dispatcher, app=app
    )

    def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **options: Any) -> Any:
        if body is not None or _is_unusual(message) or consumer.task_buckets[task.name]:
            return as_ever(message, body, ack, reject, callbacks, **options)
        request = request_of(
            message, on_ack=ack, on_reject=reject, app=app, hostname=consumer.hostname,
            eventer=consumer.event_dispatcher, task=task, connection_errors=consumer.connection_errors,
            body=message.body, headers=message.headers, decoded=False, utc=True,
        )  # fmt: skip
        if (request.expires or request.id in controller.state.revoked) and request.revoked():
            return None
        for callback in callbacks or ():
            callback(request)
        return gathering.take_in(request)

    return on_message


class EventBatcher:
    """The events of one task that wait for a process of this worker."""

    def __init__(self, task: Any, consumer: Any) -> None:
        self._task = task
        self._consumer = consumer
        self._controller = consumer.controller
        self._waiting: deque[Any] = deque()
        self._to_announce: list[Any] = []
        self._is_due = False
        self._asked = False
        """Whether we stand in the line for the next free process."""

    def take_in(self, request: Any) -> None:
        """Have the event done as soon as a process is free."""
        state.task_reserved(request)
        self._waiting.append(request)
        self._to_announce.append(request)
        if not self._is_due:
            # Once for all that arrive in this turn of the loop: free processes share them.
            self._is_due = True
            self._consumer.hub.call_later(0, self._hand_out)

    def _hand_out(self) -> None:
        self._is_due = False
        announced, self._to_announce = self._to_announce, []
        if self._controller.pool.uses_semaphore:
            self._share()
            self._announce(announced)
        else:  # the pool is this very process: what is handed over has been done when it returns
            self._announce(announced)
            while group := self._take(LARGEST):
                self._run(group)

    def _share(self) -> None:
        """Give the free processes what there is; stand in line with the rest."""
        free = self._controller.semaphore.value
        while free > 0 and self._waiting:
            group = self._take(-(-len(self._waiting) // free))
            if group:
                self._controller._quick_acquire(self._run, group)  # noqa: SLF001 - Celery has no public name for it
            free -= 1
        self._ask()

    def _ask(self) -> None:
        if self._waiting and not self._asked:
            self._asked = True
            self._controller._quick_acquire(self._freed)  # noqa: SLF001

    def _freed(self) -> None:
        """A process is free, and ours."""
        self._asked = False
        group = self._take(LARGEST)
        if group:
            self._run(group)
        else:
            self._controller._quick_release()  # noqa: SLF001
        self._ask()

    def _take(self, number: int) -> list[Any]:
        """The next events that are still ours to do, at most `number`."""
        group: list[Any] = []
        while self._waiting and len(group) < min(number, LARGEST):
            request = self._waiting.popleft()
            # After a lost connection everything reserved was forgotten, and comes again.
            if request in state.reserved_requests and not request.revoked():
                group.append(request)
        return group

    def _run(self, group: list[Any]) -> None:
        """Send `group` to the process that was had for it."""
        if len(group) == 1:
            self._controller._process_task(group[0])  # noqa: SLF001
            return
        calls: list[Call] = [
            (each.id, each.args[0] if each.args else None, each.reply_to, each.request_dict.get(HEADER))
            for each in group
        ]
        job = Job(group, self._again)
        self._controller.pool.apply_async(
            run_calls,
            args=(self._task.name, calls),
            accept_callback=job.accepted,
            timeout_callback=job.timed_out,
            callback=job.done,
            error_callback=job.failed,
            soft_timeout=self._task.soft_time_limit,
            timeout=self._task.time_limit,
            correlation_id=group[0].id,
        )

    def _again(self, group: Sequence[Any]) -> None:
        """One by one, Celery's own way."""
        for request in group:
            self._controller.process_task(request)

    def _announce(self, requests: Sequence[Any]) -> None:
        for request in requests:
            signals.task_received.send(sender=self._consumer, request=request)
            request.send_event(
                "task-received",
                name=request.name,
                args=request.argsrepr,
                kwargs=request.kwargsrepr,
                root_id=request.root_id,
                parent_id=request.parent_id,
                retries=request.request_dict.get("retries", 0),
                eta=None,
                expires=request.expires and request.expires.isoformat(),
            )


class Job:
    """A group of events in one process: what the pool says of the job, said of each event."""

    def __init__(self, group: Sequence[Any], again: Callable[[Sequence[Any]], None]) -> None:
        self._group = group
        self._again = again
        self._is_over = False

    def accepted(self, pid: int, at: float) -> None:
        """A process has begun."""
        for request in self._group:
            request.on_accepted(pid, at)

    def done(self, result: tuple[list[str] | None, str, float]) -> None:
        """The process is through: all of them are done, or none is and `error` says why."""
        outcomes, error, seconds = result
        if outcomes is None:
            self._one_by_one(error)
            return
        self._is_over = True
        for request, outcome in zip(self._group, outcomes, strict=True):
            request.on_success((False, repr(outcome), seconds))

    def failed(self, info: ExceptionInfo, **_: Any) -> None:
        """The process is gone, or was ended at its time limit."""
        self._one_by_one(type(getattr(info.exception, "exc", info.exception)).__name__)

    def timed_out(self, soft: bool, timeout: float) -> None:
        """The job runs too long. After a hard limit the pool reports it as failed as well."""
        log.warning("batch_timed_out", count=len(self._group), seconds=timeout, state="soft" if soft else "hard")

    def _one_by_one(self, error: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        log.warning("batch_split", count=len(self._group), error=error)
        self._again([request for request in self._group if not request.revoked()])


def run_calls(task: str, calls: Sequence[Call]) -> tuple[list[str] | None, str, float]:
    """In a process of the pool: all events in one transaction. Gives outcomes, or the error's name; and seconds."""
    began = monotonic()
    try:
        received = [Received(event, reply_to, task, task_id, status) for task_id, event, reply_to, status in calls]
        outcomes = process(received, BATCH_HANDLERS[task], context.current()).outcomes(received)
    except Exception as error:  # noqa: BLE001 - whatever it is, each event is done again by itself, and told there
        return None, type(error).__name__, monotonic() - began
    return outcomes, "", monotonic() - began


def _is_unusual(message: Any) -> bool:
    """Whether the message asks for more than to be done once and soon."""
    headers = message.headers or {}
    try:
        args, kwargs, embed = message.payload
    except (TypeError, ValueError):
        return True
    return bool(
        headers.get("eta")
        or any(headers.get("timelimit") or ())
        or len(args) != 1
        or kwargs
        or any((embed or {}).values())
    )


def _is_solo(pool: Any) -> bool:
    return type(pool).__module__ == "celery.concurrency.solo"
