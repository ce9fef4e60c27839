# SPDX-License-Identifier: Apache-2.0
"""Store rejected messages in the quarantine table, and refuse them to the station where it can be reached."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import insert, select, update

from schemas.external_text import one_line
from schemas.models import QuarantinedMessage, table
from schemas.replies import Outcome, ReturnReply
from schemas.reply_signature import sign_reply
from schemas.topology import RETURNS_QUEUE, reply_queue
from tasks.quarantine.rejection import MAX_QUARANTINED_CHARS, MESSAGES, RejectedMessage, body_digest
from tasks.unit_of_work import UnitOfWork

OPEN_STATES: Final = ("kept", "retried")
"""States of a message that waits for a decision (`kept`) or for its reply (`retried`)."""

ERASED_CONTENT: Final[Mapping[str, str | None]] = MappingProxyType({"body": "", "envelope": None, "detail": ""})
"""Values of a row whose content is erased. The detail may quote the message."""


def quarantine(rejected: Sequence[RejectedMessage], uow: UnitOfWork) -> None:
    """Write `rejected` to the quarantine table, and enqueue a refusal to each registered station that asks for a reply.

    The refusal of a message that its station signed is signed. Another refusal is not: a signature would let a sender
    without a key have the worker refuse any event in a form that its station accepts. No refusal goes to another queue
    than that of the station which the message names.

    A message that has an open row already (the station resent it, or a retry failed) updates that row: its count grows
    and its state is `kept` again.
    """
    if not rejected:
        return
    rows = [_row(message, uow) for message in rejected]
    stored = _open_rows(rows, uow)
    new = [row for row in rows if (row["event_id"], row["body"]) not in stored]
    for row in rows:
        if (number := stored.get((row["event_id"], row["body"]))) is not None:
            uow.session.execute(
                update(table(QuarantinedMessage))
                .where(QuarantinedMessage.id == number)
                .values(
                    state="kept", reason=row["reason"], detail=row["detail"], reply_to=row["reply_to"],
                    times=QuarantinedMessage.times + 1, last_at=uow.now,
                )
            )  # fmt: skip
    if new:
        uow.session.execute(insert(table(QuarantinedMessage)), new)
    for message in rejected:
        if message.event_id is not None and (queue := _refusal_queue(message)) is not None:
            refusal = ReturnReply(
                event_id=message.event_id,
                outcome=Outcome.REFUSED,
                reason=message.reason,
                message=MESSAGES[message.reason],
                next_step="Report this to the person who runs the stations. The message was kept.",
            )
            body = refusal.model_dump_json(exclude_none=True)
            if message.reply_keys is not None:
                body = sign_reply(body, message.reply_keys)
            uow.enqueue(queue, body, event_id=message.event_id)


def _refusal_queue(message: RejectedMessage) -> str | None:
    if message.station is None or not message.is_registered:
        return None
    queue = reply_queue(message.station)
    return queue if message.received.reply_to == queue else None


def _row(message: RejectedMessage, uow: UnitOfWork) -> dict[str, Any]:
    body, whole = _json_text(message.received.payload)
    return {
        "received_at": uow.now,
        "queue": RETURNS_QUEUE,
        "task": message.received.task,
        "reason": message.reason,
        "detail": one_line(message.detail, 1000),
        "station": one_line(message.station or "", 100) or None,
        "event_id": None if message.event_id is None else str(message.event_id),
        "reply_to": one_line(message.received.reply_to or "", 100) or None,
        "body": body,
        "whole": whole,
        "size": len(body),
        "digest": body_digest(body),
    }


def _json_text(payload: object) -> tuple[str, bool]:
    """The payload as JSON text, cut to what the quarantine stores; and whether the text is complete."""
    try:
        text = json.dumps(payload, default=repr, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: it can be stored only as an escape
        text = json.dumps(payload, default=repr)
    except (ValueError, RecursionError):
        return "", False
    return text[:MAX_QUARANTINED_CHARS], len(text) <= MAX_QUARANTINED_CHARS


def _open_rows(rows: Sequence[dict[str, Any]], uow: UnitOfWork) -> dict[tuple[str, str], int]:
    """Ids of the open rows with the same messages, by event id and body."""
    ids = [row["event_id"] for row in rows if row["event_id"] is not None]
    if not ids:
        return {}
    found = uow.session.execute(
        select(QuarantinedMessage.id, QuarantinedMessage.event_id, QuarantinedMessage.body).where(
            QuarantinedMessage.event_id.in_(ids), QuarantinedMessage.state.in_(OPEN_STATES)
        )
    )
    return {(row.event_id, row.body): row.id for row in found if row.event_id is not None}
