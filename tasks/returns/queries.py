# SPDX-License-Identifier: Apache-2.0
"""What there is to tell of events and their answers, for operations. Queries that name no patron column.

What was scanned is told only where it was found to be an item of a request: else it could be a reader's card.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, func, select

from schemas.identifiers import uuid7_time
from schemas.models import Branch, InboxEntry, QuarantinedMessage, Station
from schemas.replies import Outcome, ReturnReply

_A_RETURNS_REPLY: Final = f'{{"type":"{ReturnReply.model_fields["type"].default}"%'
"""How a stored answer to a Return begins; the inbox has those to other events too."""

LOOKED_BACK: Final = timedelta(hours=24)
"""How far back the stations' answers are counted."""

_AHEAD: Final = 1.0
"""Ids that are made within one millisecond run ahead of the clock; beyond so many seconds the station's clock is wrong."""


@dataclass(frozen=True)
class Asked:
    """Which answers to list."""

    outcomes: Collection[Outcome] = ()
    """Empty: all."""
    station: str | None = None
    since: datetime | None = None
    """`None`: as far back as there are any, which can take its time where hardly one fits."""
    limit: int = 50


def answers(connection: Connection, asked: Asked) -> list[dict[str, Any]]:
    """The last answers to Returns, the newest first."""
    query = (
        select(InboxEntry.event_id, InboxEntry.station, InboxEntry.answered_at, InboxEntry.reply)
        .where(InboxEntry.reply.like(_A_RETURNS_REPLY))
        .order_by(InboxEntry.answered_at.desc(), InboxEntry.event_id.desc())
        .limit(asked.limit)
    )
    if asked.outcomes:
        query = query.where(InboxEntry.outcome.in_([outcome.value for outcome in asked.outcomes]))
    if asked.since is not None:
        query = query.where(InboxEntry.answered_at > asked.since)
    if asked.station is not None:
        query = query.where(InboxEntry.station == asked.station)
    return [_answer(row) for row in connection.execute(query)]


def quarantined(connection: Connection, limit: int = 20) -> dict[str, Any]:
    """How many messages are in quarantine, and the last of them; not what they say."""
    rows = connection.execute(
        select(
            QuarantinedMessage.id,
            QuarantinedMessage.received_at,
            QuarantinedMessage.queue,
            QuarantinedMessage.reason,
            QuarantinedMessage.detail,
            QuarantinedMessage.station,
            QuarantinedMessage.event_id,
        )
        .order_by(QuarantinedMessage.received_at.desc(), QuarantinedMessage.id.desc())
        .limit(limit)
    )
    count = connection.execute(select(func.count()).select_from(QuarantinedMessage)).scalar_one()
    return {
        "count": count,
        "messages": [{**row, "received_at": row["received_at"].isoformat()} for row in rows.mappings()],
    }


def stations(connection: Connection, now: datetime) -> list[dict[str, Any]]:
    """Every station: when it was last answered, and how often in the last `LOOKED_BACK`."""
    seen = (
        select(
            InboxEntry.station,
            func.max(InboxEntry.answered_at).label("last"),
            func.count().label("answers"),
            func.count().filter(InboxEntry.outcome == Outcome.REFUSED.value).label("refusals"),
        )
        .where(InboxEntry.answered_at > now - LOOKED_BACK)
        .group_by(InboxEntry.station)
        .subquery()
    )
    rows = connection.execute(
        select(Station.code, Branch.code.label("branch"), Station.active, seen.c.last, seen.c.answers, seen.c.refusals)
        .join(Branch, Branch.id == Station.branch_id)
        .outerjoin(seen, seen.c.station == Station.code)
        .order_by(Branch.code, Station.code)
    )
    return [
        {
            "station": row.code,
            "branch": row.branch,
            "active": row.active,
            "last_answer": None if row.last is None else row.last.isoformat(),
            "answers": row.answers or 0,
            "refusals": row.refusals or 0,
        }
        for row in rows
    ]


def _answer(row: Any) -> dict[str, Any]:
    reply = ReturnReply.model_validate_json(row.reply)
    made = uuid7_time(row.event_id)
    took = None if made is None else (row.answered_at - made).total_seconds()
    is_known = reply.title is not None  # else "request" and "barcode" are what was typed and scanned
    return {
        "event": str(row.event_id),
        "station": row.station,
        "scanned_at": None if made is None else made.isoformat(),
        "answered_at": row.answered_at.isoformat(),
        "took_seconds": None if took is None or took < -_AHEAD else max(took, 0.0),
        "outcome": reply.outcome.value,
        "reason": reply.reason,
        "message": reply.message if is_known else None,
        "request": reply.request if is_known else None,
        "title": reply.title,
        "barcode": reply.barcode if is_known else None,
        "delivery_code": reply.destination.delivery_code if reply.destination is not None else None,
        "discharged": reply.discharged,
        "slip": None if reply.slip is None else str(reply.slip),
        "urgent": reply.urgent,
    }
