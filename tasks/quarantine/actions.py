# SPDX-License-Identifier: Apache-2.0
"""What a person decides about a quarantined message: back on its queue, or gone. Who and why stays on record."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import select

from schemas.models import QuarantinedMessage
from schemas.task_message import task_body, task_headers
from schemas.topology import RETURNS_QUEUE
from tasks.context import Context
from tasks.operator import Operator
from tasks.ports import Envelope, Outgoing
from tasks.quarantine.dead_letter import body_of, is_work_queue
from tasks.quarantine.store import OPEN
from tasks.unit_of_work import UnitOfWork, retry_on_conflict

Result = TypeVar("Result")


class RefusedDecisionError(Exception):
    """It cannot be done to this message. The text says why, and what can be done."""


def retry(number: int, by: Operator, here: Context) -> str:
    """Put a message back on its queue as it was; give words. Raises `RefusedDecisionError`, and then nothing was sent.

    It is noted first: a message that comes back at once finds its row and waits in it again.
    """
    if here.dead_letters is None:
        raise RefusedDecisionError("There is no broker to put it back to.")

    def note(row: QuarantinedMessage, uow: UnitOfWork) -> Outgoing:
        message = outgoing(row, here.worker)
        _decide(row, by, "retried", uow)
        return message

    message = _in_one_commit(number, here, note)
    try:
        with here.dead_letters() as letters:
            letters.requeue(message)
    except Exception as error:
        _in_one_commit(number, here, lambda row, _uow: _back(row))
        raise RefusedDecisionError(
            f"The broker did not take it ({type(error).__name__}). It is kept as it was."
        ) from error
    if message.queue == RETURNS_QUEUE:
        return f"Put back on {message.queue}; it is settled when it is answered."
    _in_one_commit(number, here, _settled)
    return f"Put back on {message.queue}."


def drop(number: int, by: Operator, here: Context) -> str:
    """Give a message up: its body is erased, the record stays. Needs a reason."""
    if not (by.reason or "").strip():
        raise RefusedDecisionError("Dropping a message needs a reason; it stands in the record.")

    def act(row: QuarantinedMessage, uow: UnitOfWork) -> str:
        _decide(row, by, "dropped", uow)
        _erase(row, uow)
        return "Dropped. What it said is erased; the record stays."

    return _in_one_commit(number, here, act)


def outgoing(row: QuarantinedMessage, origin: str) -> Outgoing:
    """The message as it is put back. Raises `RefusedDecisionError` when that makes no sense."""
    if row.reason == "malformed":
        raise RefusedDecisionError("No worker can read it: it would come back here. Look at it, then drop it.")
    if not row.whole:
        raise RefusedDecisionError("It was larger than is kept, so it cannot be put back as it was. The station must.")
    if not is_work_queue(row.queue):
        raise RefusedDecisionError(f"{row.queue} is no queue of a worker.")
    if row.envelope is not None:
        around: dict[str, Any] = json.loads(row.envelope)
        return Outgoing(row.queue, body_of(row.body, row.encoding), Envelope(**around))
    if row.task is None:
        raise RefusedDecisionError(
            "It was kept by an earlier version, which did not note its task. The station must send it."
        )
    task_id = row.event_id or f"quarantine-{row.id}"
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


def _in_one_commit(number: int, here: Context, act: Callable[[QuarantinedMessage, UnitOfWork], Result]) -> Result:
    def work() -> Result:
        with here.unit_of_work() as uow:
            row = uow.session.scalar(
                select(QuarantinedMessage).where(QuarantinedMessage.id == number).with_for_update()
            )
            if row is None:
                raise RefusedDecisionError(f"There is no message {number}. 'bookdrop quarantine list' shows them.")
            return act(row, uow)

    return retry_on_conflict(work)


def _decide(row: QuarantinedMessage, by: Operator, state: str, uow: UnitOfWork) -> None:
    if row.state not in OPEN:
        raise RefusedDecisionError(f"Message {row.id} is {row.state} already.")
    row.state = state
    row.decided_at = uow.now
    row.decided_by = by.actor
    row.decision_reason = by.reason


def _back(row: QuarantinedMessage) -> None:
    row.state = "kept"


def _settled(row: QuarantinedMessage, uow: UnitOfWork) -> None:
    row.state = "settled"
    _erase(row, uow)


def _erase(row: QuarantinedMessage, uow: UnitOfWork) -> None:
    row.body = ""
    row.envelope = None
    row.erased_at = uow.now
