# SPDX-License-Identifier: Apache-2.0
"""An event's way through a Celery task: one transaction, then publish; errors mean "again" or "set apart"."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from uuid6 import uuid7

from schemas import station_status
from schemas.circulation_events import ActionReply
from tasks import context
from tasks.events.metrics import measure
from tasks.events.policy import LibraryPolicy
from tasks.events.results import Answered, Batch
from tasks.ports import PendingMessage
from tasks.quarantine.rejection import Received, RejectedMessage, event_id_of, station_of
from tasks.quarantine.store import quarantine
from tasks.requeue import requeue
from tasks.unit_of_work import StaleStateError, UnitOfWork, retry_on_conflict

log = structlog.get_logger()

LONGEST_PAUSE: Final = 15.0
"""Longest wait before an event is put back on the queue while the database is away, in seconds."""

TRIES_OF_A_FAULT: Final = 3
"""How often an event that makes us fail is tried before it goes to quarantine."""

Handler = Callable[[Sequence[Received], UnitOfWork, LibraryPolicy], Batch[Any]]
"""What is done with events in one open transaction, such as `tasks.returns.handler.return_items`."""

HANDLERS: Final[dict[str, Handler]] = {}
"""The handler of each task whose events can be done together, by the task's name."""


def process(task: Any, payload: object, handler: Handler) -> str:
    """Do one event, as the Celery task `task`; give the outcome. Raises only what puts the task back."""
    received = Received(payload, task.request.reply_to, task.name, task.request.get(station_status.HEADER))
    began = context.current().now()
    try:
        batch, messages = retry_on_conflict(lambda: perform([received], handler))
    except (DBAPIError, PoolTimeoutError, StaleStateError) as error:
        # The database is away: wait here, for no other event can be done either, then put it back.
        pause = min(0.5 * 2**task.request.retries, LONGEST_PAUSE)
        log.warning("event_requeued", error=type(error).__name__, pause_seconds=pause)
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        raise requeue(task, error) from error
    except Exception as error:
        log.exception("event_failed", error=type(error).__name__)
        if task.request.retries + 1 < TRIES_OF_A_FAULT:
            raise requeue(task, error) from error
        reason = type(error).__name__
        batch, messages = retry_on_conflict(lambda: _quarantine(received, reason))
    context.current().publisher.publish_outbox(messages)
    measure(batch, context.current(), began)
    log_results(batch)
    return _outcome(batch)


def process_many(task: str, received: Sequence[tuple[str, Received]]) -> list[str]:
    """Do events of one task in one transaction; give the outcome of each, in their order.

    `received`: task ids and messages. Raises whatever goes wrong; then nothing was kept, and each is done by itself.
    """
    began = context.current().now()
    batch, messages = retry_on_conflict(lambda: perform([each for _, each in received], HANDLERS[task]))
    context.current().publisher.publish_outbox(messages)
    measure(batch, context.current(), began)
    outcomes = {str(each.event.event.event_id): _outcome_of(each) for each in batch.answered}
    ids = {str(event_id): task_id for task_id, each in received if (event_id := event_id_of(each.payload))}
    log_results(batch, lambda event_id: {"task": task, "task_id": ids.get(event_id)})
    return [outcomes.get(str(event_id_of(each.payload)), "quarantined") for _, each in received]


def perform(events: Sequence[Received], handler: Handler) -> tuple[Batch[Any], list[PendingMessage]]:
    """One transaction for `events`; gives what became of them and the messages to publish, replies first."""
    here = context.current()
    house = LibraryPolicy(new_id=uuid7, undo_window=here.undo_window, patron_card_pattern=here.patron_card_pattern)
    with here.unit_of_work() as uow:
        batch = handler(events, uow, house)
    return batch, batch.again + uow.pending_messages


def _quarantine(received: Received, detail: str) -> tuple[Batch[Any], list[PendingMessage]]:
    """Keep an event that makes us fail, so that it harms nobody else and a person can look."""
    with context.current().unit_of_work() as uow:
        apart = RejectedMessage(received, "failed", detail, event_id_of(received.payload), station_of(received.payload))
        quarantine([apart], uow)
    return Batch(distrusted=[apart]), uow.pending_messages


def log_results(batch: Batch[Any], more: Callable[[str], Mapping[str, Any]] = lambda _event_id: {}) -> None:
    """Log what became of each event; `more` binds what stands beside an event of that id."""
    for answered in batch.answered:
        event, reply = answered.event.event, answered.reply
        bound = log.bind(event_id=str(event.event_id), station=event.station, **more(str(event.event_id)))
        if reply is None:
            bound.info("reply_sent_again")
        elif isinstance(reply, ActionReply):
            bound.info(f"action_{reply.outcome.value}", request=reply.request, reason=reply.reason)
        else:
            verb = "return_applied" if reply.outcome == "returned" else f"return_{reply.outcome.value}"
            bound.info(verb, request=reply.request, reason=reply.reason)
    for distrusted in batch.distrusted:
        log.warning("message_quarantined", reason=distrusted.reason, station=distrusted.station)


def _outcome(batch: Batch[Any]) -> str:
    if batch.distrusted:
        return "quarantined"
    return _outcome_of(batch.answered[0])


def _outcome_of(answered: Answered[Any]) -> str:
    return "answered_again" if answered.reply is None else answered.reply.outcome.value
