# SPDX-License-Identifier: Apache-2.0
"""Batch while busy: an event runs at once if a process is idle; otherwise events wait and run as one job.

A Celery task strategy (see "Task message handler" in Celery's documentation of extensions). It handles only messages
without unusual options; Celery's default strategy handles the others:

- A single event that finds an idle process is handed to it by Celery's own request, at once. No timer, no wait.
- While all processes are busy, events wait. The process that becomes idle takes up to `MAX_BATCH` of them as one pool job,
  in one transaction. Acknowledgement, state and monitoring events remain those of each single event.
- A job can fail as a whole, lose its process, or exceed its time limit. Then its events run again one by one, in Celery's
  own way, and only the cause fails. Events that were committed get their stored reply from the inbox.
- When the worker ends or loses its broker, waiting events return to the broker, as all messages without acknowledgement.
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
from workers.runtime.handover import release_slot

log = structlog.get_logger()

MAX_BATCH: Final = 50
"""Largest number of events in one transaction."""
MONITORING_BUFFER: Final = 200
"""Largest number of monitoring events in one message to the broker. The buffer is flushed at intervals as well."""

EventCall = tuple[str, object, str | None, object]
"""The data of an event for a pool process: task id, event, reply queue, and the station's status header."""


def batch_strategy(task: Any, app: Any, consumer: Any, **_: Any) -> Callable[..., Any]:
    """Return the consumer's handler of messages for `task`."""
    default = strategy.default(task, app, consumer)
    controller = consumer.controller
    if consumer.hub is None or not (controller.pool.uses_semaphore or _is_solo(controller.pool)):
        return default
    if consumer.event_dispatcher is not None:
        consumer.event_dispatcher.buffer_limit = max(consumer.event_dispatcher.buffer_limit, MONITORING_BUFFER)
    batcher = EventBatcher(task, consumer)
    request_class = create_request_cls(
        symbol_by_name(task.Request), task, consumer.pool, consumer.hostname, consumer.event_dispatcher, app=app
    )

    def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **options: Any) -> Any:
        if body is not None or _is_unusual(message) or consumer.task_buckets[task.name]:
            return default(message, body, ack, reject, callbacks, **options)
        request = request_class(
            message, on_ack=ack, on_reject=reject, app=app, hostname=consumer.hostname,
            eventer=consumer.event_dispatcher, task=task, connection_errors=consumer.connection_errors,
            body=message.body, headers=message.headers, decoded=False, utc=True,
        )  # fmt: skip
        if (request.expires or request.id in controller.state.revoked) and request.revoked():
            return None
        for callback in callbacks or ():
            callback(request)
        return batcher.add(request)

    return on_message


class EventBatcher:
    """The events of one task that wait for a process of this worker."""

    def __init__(self, task: Any, consumer: Any) -> None:
        self._task = task
        self._consumer = consumer
        self._controller = consumer.controller
        self._waiting: deque[Any] = deque()
        self._received: list[Any] = []
        """Requests whose `task-received` is not emitted yet."""
        self._is_scheduled = False
        self._awaits_process = False
        """True while the batcher is in the line for the next idle process."""

    def add(self, request: Any) -> None:
        """Run the event as soon as a process is idle."""
        state.task_reserved(request)
        self._waiting.append(request)
        self._received.append(request)
        if not self._is_scheduled:
            # Once for all events that arrive in this turn of the loop: the idle processes share them.
            self._is_scheduled = True
            self._consumer.hub.call_later(0, self._dispatch)

    def _dispatch(self) -> None:
        self._is_scheduled = False
        received, self._received = self._received, []
        if self._controller.pool.uses_semaphore:
            self._dispatch_to_idle()
            self._emit_received(received)
        else:  # the solo pool is this very process: a job has finished when `_submit` returns
            self._emit_received(received)
            while group := self._next_group(MAX_BATCH):
                self._submit(group)

    def _dispatch_to_idle(self) -> None:
        """Distribute the waiting events over the idle processes; await a process for the rest."""
        idle = self._controller.semaphore.value
        while idle > 0 and self._waiting:
            group = self._next_group(-(-len(self._waiting) // idle))
            if group:
                self._controller._quick_acquire(self._submit, group)  # noqa: SLF001 - Celery has no public name for it
            idle -= 1
        self._await_process()

    def _await_process(self) -> None:
        if self._waiting and not self._awaits_process:
            self._awaits_process = True
            self._controller._quick_acquire(self._on_process_idle)  # noqa: SLF001

    def _on_process_idle(self) -> None:
        """Called with a process acquired."""
        self._awaits_process = False
        group = self._next_group(MAX_BATCH)
        if group:
            self._submit(group)
        else:
            self._controller._quick_release()  # noqa: SLF001
        self._await_process()

    def _next_group(self, size: int) -> list[Any]:
        """Remove and return the next events that are still reserved, at most `size`."""
        group: list[Any] = []
        while self._waiting and len(group) < min(size, MAX_BATCH):
            request = self._waiting.popleft()
            # After a lost connection Celery has discarded all reserved requests; the broker redelivers them.
            if request in state.reserved_requests and not request.revoked():
                group.append(request)
        return group

    def _submit(self, group: list[Any]) -> None:
        """Submit `group` to the pool, with a process acquired for it."""
        if len(group) == 1:
            self._controller._process_task(group[0])  # noqa: SLF001
            return
        job = BatchJob(group, self._run_one_by_one)
        try:
            calls: list[EventCall] = [
                (each.id, each.args[0] if each.args else None, each.reply_to, each.request_dict.get(HEADER))
                for each in group
            ]
            self._controller.pool.apply_async(
                run_batch,
                args=(self._task.name, calls),
                accept_callback=job.on_accepted,
                timeout_callback=job.on_timeout,
                callback=job.on_finished,
                error_callback=job.on_failure,
                soft_timeout=self._task.soft_time_limit,
                timeout=self._task.time_limit,
                correlation_id=group[0].id,
            )
        except Exception as error:  # noqa: BLE001 - any error: each event is handed over alone, and only the cause fails
            release_slot(self._controller, group[0].id)
            job.split(type(error).__name__)

    def _run_one_by_one(self, group: Sequence[Any]) -> None:
        """Run each request in Celery's own way."""
        for request in group:
            self._controller.process_task(request)

    def _emit_received(self, requests: Sequence[Any]) -> None:
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


class BatchJob:
    """A group of events in one pool job. Forwards the pool's callbacks to the request of each event."""

    def __init__(self, group: Sequence[Any], run_one_by_one: Callable[[Sequence[Any]], None]) -> None:
        self._group = group
        self._run_one_by_one = run_one_by_one
        self._is_over = False

    def on_accepted(self, pid: int, at: float) -> None:
        """Called when process `pid` begins."""
        for request in self._group:
            request.on_accepted(pid, at)

    def on_finished(self, result: tuple[list[str] | None, str, float]) -> None:
        """Called with the result of `run_batch`: all events have succeeded, or none has."""
        outcomes, error, seconds = result
        if outcomes is None:
            self.split(error)
            return
        self._is_over = True
        for request, outcome in zip(self._group, outcomes, strict=True):
            request.on_success((False, repr(outcome), seconds))

    def on_failure(self, info: ExceptionInfo, **_: Any) -> None:
        """Called when the process has died, or was ended at its time limit."""
        self.split(type(getattr(info.exception, "exc", info.exception)).__name__)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Called when the job exceeds its time limit. After a hard limit the pool reports a failure as well."""
        log.warning("batch_timed_out", count=len(self._group), seconds=timeout, state="soft" if soft else "hard")

    def split(self, error: str) -> None:
        """Run each event in Celery's own way, once; `error` names the cause."""
        if self._is_over:
            return
        self._is_over = True
        log.warning("batch_split", count=len(self._group), error=error)
        self._run_one_by_one([request for request in self._group if not request.revoked()])


def run_batch(task: str, calls: Sequence[EventCall]) -> tuple[list[str] | None, str, float]:
    """Process all events in one transaction, in a pool process.

    Returns the outcomes, or None and the name of the error; and the duration in seconds.
    """
    began = monotonic()
    try:
        received = [Received(event, reply_to, task, task_id, status) for task_id, event, reply_to, status in calls]
        outcomes = process(received, BATCH_HANDLERS[task], context.current()).outcomes(received)
    except Exception as error:  # noqa: BLE001 - any error: each event runs again by its own task, which logs its error
        return None, type(error).__name__, monotonic() - began
    return outcomes, "", monotonic() - began


def _is_unusual(message: Any) -> bool:
    """Return True if the message has options: a start time, a time limit, other arguments, callbacks."""
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
