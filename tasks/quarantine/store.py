# SPDX-License-Identifier: Apache-2.0
"""What could not be believed is kept with its reason, and the station is told where it can be told."""

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import insert, select, update

from schemas.models import QuarantinedMessage, table
from schemas.replies import Outcome, ReturnReply
from schemas.topology import RETURNS_QUEUE, is_reply_queue
from tasks.quarantine.rejection import MAX_QUARANTINED_CHARS, REFUSALS, RejectedMessage
from tasks.unit_of_work import UnitOfWork

OPEN: Final = ("kept", "retried")
"""States in which a message waits for somebody or something."""


def quarantine(distrusted: Sequence[RejectedMessage], uow: UnitOfWork) -> None:
    """Write `distrusted` to the quarantine table, and promise a refusal to each station that can be told.

    The same message again (a station that asks, or a retry that was in vain) is the row that is there, and waits again.
    """
    if not distrusted:
        return
    rows = [_row(each, uow) for each in distrusted]
    known = _known(rows, uow)
    fresh = [row for row in rows if (row["event_id"], row["body"]) not in known]
    for row in rows:
        if (number := known.get((row["event_id"], row["body"]))) is not None:
            uow.session.execute(
                update(table(QuarantinedMessage))
                .where(QuarantinedMessage.id == number)
                .values(
                    state="kept", reason=row["reason"], detail=row["detail"], reply_to=row["reply_to"],
                    times=QuarantinedMessage.times + 1, last_at=uow.now,
                )
            )  # fmt: skip
    if fresh:
        uow.session.execute(insert(table(QuarantinedMessage)), fresh)
    for each in distrusted:
        if each.event_id is not None and each.received.reply_to and is_reply_queue(each.received.reply_to):
            refusal = ReturnReply(
                event_id=each.event_id,
                outcome=Outcome.REFUSED,
                reason=each.reason,
                message=REFUSALS[each.reason],
                next_step="Tell the person who runs the stations. It was kept.",
            )
            uow.enqueue(each.received.reply_to, refusal.model_dump_json(exclude_none=True), event_id=each.event_id)


def _row(each: RejectedMessage, uow: UnitOfWork) -> dict[str, Any]:
    body, whole = _text(each.received.payload)
    return {
        "received_at": uow.now,
        "queue": RETURNS_QUEUE,
        "task": each.received.task,
        "reason": each.reason,
        "detail": each.detail,
        "station": (each.station or "").replace("\x00", "") or None,
        "event_id": None if each.event_id is None else str(each.event_id),
        "reply_to": (each.received.reply_to or "")[:100].replace("\x00", "") or None,
        "body": body,
        "whole": whole,
    }


def _text(payload: object) -> tuple[str, bool]:
    """The message as JSON, and whether that is all of it."""
    try:
        text = json.dumps(payload, default=repr, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:  # half a character: only escaped can it be stored
        text = json.dumps(payload, default=repr)
    except (ValueError, RecursionError):
        return "", False
    return text[:MAX_QUARANTINED_CHARS], len(text) <= MAX_QUARANTINED_CHARS


def _known(rows: Sequence[dict[str, Any]], uow: UnitOfWork) -> dict[tuple[str, str], int]:
    """The open rows of these very messages, by event id and body."""
    ids = [row["event_id"] for row in rows if row["event_id"] is not None]
    if not ids:
        return {}
    found = uow.session.execute(
        select(QuarantinedMessage.id, QuarantinedMessage.event_id, QuarantinedMessage.body).where(
            QuarantinedMessage.event_id.in_(ids), QuarantinedMessage.state.in_(OPEN)
        )
    )
    return {(row.event_id, row.body): row.id for row in found if row.event_id is not None}
