# SPDX-License-Identifier: Apache-2.0
"""The Celery tasks of the Return: decode, call the handler, publish, map errors."""

import random
import time
from typing import Any, Final

import structlog
from celery import shared_task
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from uuid6 import uuid7

from schemas.topology import PROCESS_RETURN, PROCESS_SCAN
from tasks import context
from tasks.returns.handler import Batch, House, return_items
from tasks.returns.quarantine import keep
from tasks.returns.reception import Distrusted, Received, event_id_of, station_of
from tasks.returns.request import EventTask
from tasks.unit_of_work import PendingMessage, StaleStateError, run_again_on_conflict

log = structlog.get_logger()

LONGEST_PAUSE: Final = 15.0
"""Longest wait before an event is put back on the queue while the database is away, in seconds."""

TRIES_OF_A_FAULT: Final = 3
"""How often an event that makes us fail is tried before it goes to quarantine."""


@shared_task(bind=True, base=EventTask, name=PROCESS_SCAN)
def process_scan(self: Any, event: object) -> str:
    """Return the item whose barcode was scanned. `event`: a `BarcodeScanned` as JSON. Gives the outcome."""
    return _process(self, event)


@shared_task(bind=True, base=EventTask, name=PROCESS_RETURN)
def process_return(self: Any, event: object) -> str:
    """Return a request that staff chose. `event`: a `ReturnRequested` as JSON. Gives the outcome."""
    return _process(self, event)


def _process(task: Any, payload: object) -> str:
    received = Received(payload, task.request.reply_to)
    try:
        batch, messages = run_again_on_conflict(lambda: perform([received]))
    except (DBAPIError, PoolTimeoutError, StaleStateError) as error:
        # The database is away: wait here, for no other event can be done either, then put it back.
        pause = min(0.5 * 2**task.request.retries, LONGEST_PAUSE)
        log.warning("return_put_back", error=type(error).__name__, pause_seconds=pause)
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        raise task.retry(exc=error, countdown=0) from error
    except Exception as error:
        log.exception("return_failed", error=type(error).__name__)
        if task.request.retries + 1 < TRIES_OF_A_FAULT:
            raise task.retry(exc=error, countdown=0) from error
        reason = type(error).__name__
        batch, messages = run_again_on_conflict(lambda: _set_apart(received, reason))
    context.current().publish.publish_outbox(messages)
    tell(batch)
    return _outcome(batch)


def perform(events: list[Received]) -> tuple[Batch, list[PendingMessage]]:
    """One transaction for `events`; gives what became of them and the messages to publish, replies first."""
    here = context.current()
    house = House(new_id=uuid7, undo_window=here.undo_window, patron_card_pattern=here.patron_card_pattern)
    with here.unit_of_work() as uow:
        batch = return_items(events, uow, house)
    return batch, batch.again + uow.promised


def _set_apart(received: Received, detail: str) -> tuple[Batch, list[PendingMessage]]:
    """Keep an event that makes us fail, so that it harms nobody else and a person can look."""
    with context.current().unit_of_work() as uow:
        apart = Distrusted(received, "failed", detail, event_id_of(received.payload), station_of(received.payload))
        keep([apart], uow)
    return Batch(distrusted=[apart]), uow.promised


def tell(batch: Batch) -> None:
    """Log what became of each event."""
    for answered in batch.answered:
        event = answered.event.event
        bound = log.bind(event_id=str(event.event_id), station=event.station)
        if answered.reply is None:
            bound.info("reply_sent_again")
        else:
            reply = answered.reply
            bound.info(
                "return_applied" if reply.outcome == "returned" else f"return_{reply.outcome.value}",
                request=reply.request,
                reason=reply.reason,
            )
    for distrusted in batch.distrusted:
        log.warning("message_quarantined", reason=distrusted.reason, station=distrusted.station)


def _outcome(batch: Batch) -> str:
    if batch.distrusted:
        return "quarantined"
    reply = batch.answered[0].reply
    return "answered_again" if reply is None else reply.outcome.value
