# SPDX-License-Identifier: Apache-2.0
"""Decisions about a quarantined message: requeue it, or drop it. The row records the operator and the reason."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import select
from uuid6 import uuid7

from schemas.models import QuarantinedMessage
from schemas.reasons import DeadLetterReason
from schemas.task_message import is_uuid, task_body, task_headers
from schemas.topology import RETURNS_QUEUE
from tasks.context import Context
from tasks.operator import Operator
from tasks.ports import Envelope, Outgoing
from tasks.quarantine.dead_letter import decode_body, is_work_queue
from tasks.quarantine.store import ERASED_CONTENT, OPEN_STATES
from tasks.unit_of_work import UnitOfWork, retry_on_conflict

Result = TypeVar("Result")


class DecisionRefusedError(Exception):
    """A decision that this message does not allow. The text states the cause and the next step."""


def retry(number: int, by: Operator, context: Context) -> str:
    """Requeue a message unchanged; return a text for the operator.

    Raises `DecisionRefusedError` when nothing was sent. The row becomes `retried` before the message is published: a
    message that is rejected again at once finds its row, and the row waits for a decision again.
    """
    if context.dead_letters is None:
        raise DecisionRefusedError("No broker is configured, so it cannot be requeued.")

    def mark_retried(row: QuarantinedMessage, uow: UnitOfWork) -> Outgoing:
        message = outgoing(row, context.worker)
        _record_decision(row, by, "retried", uow)
        return message

    message = _in_one_commit(number, context, mark_retried)
    try:
        with context.dead_letters() as letters:
            letters.requeue(message)
    except Exception as error:
        _in_one_commit(number, context, lambda row, _uow: _keep(row))
        raise DecisionRefusedError(
            f"The broker did not accept it ({type(error).__name__}). The message is kept as it was. If the broker denies"
            f" publishing to this program's user, as to Flower's, run 'bookdrop quarantine retry {number}' on the server."
        ) from error
    if message.queue == RETURNS_QUEUE:
        return f"Requeued on {message.queue}; it is settled when the reply to it is stored."
    _in_one_commit(number, context, _settle)
    return f"Requeued on {message.queue}."


def drop(number: int, by: Operator, context: Context) -> str:
    """Drop a message: erase its body and keep its record. Raises `DecisionRefusedError` without a reason."""
    if not (by.reason or "").strip():
        raise DecisionRefusedError("Dropping a message needs a reason; the record keeps it.")

    def mark_dropped(row: QuarantinedMessage, uow: UnitOfWork) -> str:
        _record_decision(row, by, "dropped", uow)
        _erase(row, uow)
        return "Dropped. Its content is erased; the record stays."

    return _in_one_commit(number, context, mark_dropped)


def outgoing(row: QuarantinedMessage, origin: str) -> Outgoing:
    """The message to requeue. Raises `DecisionRefusedError` for a message that cannot be requeued unchanged.

    A dead letter keeps its envelope; an event, of which the body is stored alone, gets a new one.
    """
    if row.reason in {DeadLetterReason.MALFORMED, DeadLetterReason.NOT_RESTORED}:
        raise DecisionRefusedError("No worker can read it, so it would come back here. Examine it, then drop it.")
    if not row.whole:
        raise DecisionRefusedError(
            "It was larger than the quarantine stores, so it cannot be requeued unchanged. The station must resend it."
        )
    if not is_work_queue(row.queue):
        raise DecisionRefusedError(f"{row.queue} is not a queue that a worker consumes. Examine it, then drop it.")
    if row.envelope is not None:
        envelope: dict[str, Any] = json.loads(row.envelope)
        return Outgoing(row.queue, decode_body(row.body, row.encoding), Envelope(**envelope))
    if row.task is None:
        raise DecisionRefusedError(
            "An earlier version stored it without its task, so it cannot be requeued. The station must resend it."
        )
    task_id = row.event_id if is_uuid(row.event_id) and row.event_id else str(uuid7())
    return Outgoing(
        row.queue,
        task_body(row.body).encode(),
        Envelope(
            headers=task_headers(row.task, task_id, origin=origin),
            content_type="application/json",
            content_encoding="utf-8",
            correlation_id=task_id,
            reply_to=row.reply_to,
        ),
    )


def _in_one_commit(number: int, context: Context, act: Callable[[QuarantinedMessage, UnitOfWork], Result]) -> Result:
    """Apply `act` to the locked row in one transaction."""

    def work() -> Result:
        with context.unit_of_work() as uow:
            row = uow.session.scalar(
                select(QuarantinedMessage).where(QuarantinedMessage.id == number).with_for_update()
            )
            if row is None:
                raise DecisionRefusedError(f"There is no message {number}. 'bookdrop quarantine list' shows them.")
            return act(row, uow)

    return retry_on_conflict(work)


def _record_decision(row: QuarantinedMessage, by: Operator, state: str, uow: UnitOfWork) -> None:
    if row.state not in OPEN_STATES:
        raise DecisionRefusedError(f"Message {row.id} is {row.state} already.")
    row.state = state
    row.decided_at = uow.now
    row.decided_by = by.actor
    row.decided_identified_by = by.identified_by.value
    row.decided_account = by.account
    row.decision_reason = by.reason


def _keep(row: QuarantinedMessage) -> None:
    row.state = "kept"


def _settle(row: QuarantinedMessage, uow: UnitOfWork) -> None:
    row.state = "settled"
    _erase(row, uow)


def _erase(row: QuarantinedMessage, uow: UnitOfWork) -> None:
    for column, value in ERASED_CONTENT.items():
        setattr(row, column, value)
    row.erased_at = uow.now
