# SPDX-License-Identifier: Apache-2.0
"""The path of an event through a worker: validate, deduplicate, handle, store, publish."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from uuid6 import uuid7

from schemas.circulation_events import ActionReply, Reply
from schemas.database import LOCK_TIMEOUT_SECONDS
from schemas.reasons import UNMATCHED_REASONS, RejectionReason
from tasks.context import Context
from tasks.events.handler import EventHandler
from tasks.events.inbox import deduplicate, store
from tasks.events.metrics import record
from tasks.events.model import HandlerResult, ProcessedBatch
from tasks.events.policy import LibraryPolicy
from tasks.events.stations import load_stations
from tasks.events.validation import is_code, validate, with_sender
from tasks.ports import PendingMessage
from tasks.quarantine.rejection import Received, RejectedMessage, event_id_of, station_of
from tasks.quarantine.store import quarantine
from tasks.unit_of_work import UnitOfWork, retry_on_conflict

log = structlog.get_logger()


@dataclass(frozen=True)
class Committed:
    """A committed transaction, and what is left to publish."""

    batch: ProcessedBatch
    messages: Sequence[PendingMessage]
    """Replies first, then the tasks that follow."""
    began: datetime


def process(messages: Sequence[Received], handler: EventHandler[Any], context: Context) -> ProcessedBatch:
    """Validate, deduplicate, handle and store `messages` in one transaction, then publish.

    Raises the error of the transaction when a retry does not help; then nothing was stored.
    """
    return publish(commit(messages, handler, context), context)


def commit(messages: Sequence[Received], handler: EventHandler[Any], context: Context) -> Committed:
    """Process `messages` in a separate transaction, and retry it on a conflict."""
    policy = LibraryPolicy(uuid7, context.undo_window, context.patron_card_pattern, context.own_branch_only)
    return _commit(lambda uow: process_in(uow, messages, handler, policy), context)


def process_in(
    uow: UnitOfWork, messages: Sequence[Received], handler: EventHandler[Any], policy: LibraryPolicy
) -> ProcessedBatch:
    """Validate, deduplicate, handle and store `messages` in the open transaction of `uow`."""
    verified, rejected = validate(messages, handler.accepts, partial(load_stations, uow.session, uow.now))
    events = deduplicate(verified, uow.session)
    result = handler.handle(events.new, uow, policy) if events.new else HandlerResult(())
    processed = store(events.new, result, uow)
    rejected += events.conflicts
    quarantine(rejected, uow)
    return ProcessedBatch([*events.duplicates, *processed], rejected, events.resend)


def commit_failure(message: Received, error: Exception, context: Context) -> Committed:
    """Quarantine an event whose processing raises an error each time, so that it delays no other event."""
    event_id, station = event_id_of(message.payload), station_of(message.payload)
    unsigned = RejectedMessage(message, RejectionReason.FAILED, type(error).__name__, event_id, station)

    def keep(uow: UnitOfWork) -> ProcessedBatch:
        stations = load_stations(uow.session, uow.now, {station}) if station is not None and is_code(station) else {}
        failed = with_sender(unsigned, stations)
        quarantine([failed], uow)
        return ProcessedBatch(rejected=[failed])

    return _commit(keep, context)


def publish(committed: Committed, context: Context) -> ProcessedBatch:
    """Publish the replies, then the tasks that follow; record metrics and log the results."""
    context.publisher.publish_outbox(committed.messages)
    record(committed.batch, context, committed.began)
    log_results(committed.batch)
    return committed.batch


def _commit(work: Callable[[UnitOfWork], ProcessedBatch], context: Context) -> Committed:
    began = context.now()

    def transaction() -> Committed:
        with context.unit_of_work() as uow:
            batch = work(uow)
        return Committed(batch, [*batch.resend, *uow.pending_messages], began)

    # One wait for a lock: four would exceed the time limit of the task, which ends the process. The task is requeued.
    return retry_on_conflict(transaction, within=LOCK_TIMEOUT_SECONDS)


def log_results(batch: ProcessedBatch) -> None:
    """Log the outcome of each event, with the id of its task."""
    for each in batch.processed:
        event, received, reply = each.event.event, each.event.received, each.reply
        bound = log.bind(
            event_id=str(event.event_id), station=event.station, task=received.task, task_id=received.task_id
        )
        if reply is None:
            bound.info("reply_sent_again")
        elif isinstance(reply, ActionReply):
            bound.info(f"action_{reply.outcome.value}", request=_known_request(reply), reason=reply.reason)
        else:
            verb = "return_applied" if reply.outcome == "returned" else f"return_{reply.outcome.value}"
            bound.info(verb, request=_known_request(reply), reason=reply.reason)
    for rejected in batch.rejected:
        received = rejected.received
        log.warning(
            "message_quarantined", reason=rejected.reason,
            station=rejected.station if rejected.is_registered else None,  # else it is any text
            task=received.task,
            task_id=received.task_id,
        )  # fmt: skip


def _known_request(reply: Reply) -> str | None:
    """The identifier of the reply's request; `None` if it is a typed text that matched nothing: it may be a patron's."""
    return None if reply.reason in UNMATCHED_REASONS and reply.title is None else reply.request
