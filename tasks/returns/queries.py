# SPDX-License-Identifier: Apache-2.0
"""Read-only queries over processed events, for operations. They select no patron column.

A scanned code is listed only where it identified an item of a request; otherwise it could be a patron's card.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, false, func, or_, select

from schemas.identifiers import uuid7_time
from schemas.models import Branch, InboxEntry, QuarantinedMessage, RequestEvent, Station
from schemas.replies import Outcome, ReturnReply
from tasks.quarantine.store import OPEN_STATES

_A_RETURNS_REPLY: Final = f'%"type":"{ReturnReply.model_fields["type"].default}"%'
"""Part of each stored reply to a Return; the inbox contains replies to other events too.

A text inside a reply cannot contain it, because JSON escapes quotation marks. A signed reply has its fields in another order
than an unsigned one.
"""

COUNTED_PERIOD: Final = timedelta(hours=24)
"""The period in which the replies of each station are counted."""

MAX_COMPARED: Final = 5_000
"""Latest replies whose text is searched for a request. A Return is found by its history as well, also among older ones."""

_AHEAD: Final = 1.0
"""Ids that are made within one millisecond run ahead of the clock; beyond so many seconds the station's clock is wrong."""


@dataclass(frozen=True)
class ReplyFilter:
    """The replies to list."""

    outcomes: Collection[Outcome] = ()
    """Empty: all."""
    station: str | None = None
    since: datetime | None = None
    """`None`: without a limit. That can take long where few replies match."""
    requests: Mapping[int, str] | None = None
    """Only replies about these requests: internal id to external identifier."""
    limit: int = 50


def replies(connection: Connection, wanted: ReplyFilter) -> list[dict[str, Any]]:
    """The last replies to Returns, the newest first."""
    query = (
        select(InboxEntry.event_id, InboxEntry.station, InboxEntry.answered_at, InboxEntry.reply)
        .where(InboxEntry.reply.like(_A_RETURNS_REPLY))
        .order_by(InboxEntry.answered_at.desc(), InboxEntry.event_id.desc())
    )
    if wanted.outcomes:
        query = query.where(InboxEntry.outcome.in_([outcome.value for outcome in wanted.outcomes]))
    if wanted.since is not None:
        query = query.where(InboxEntry.answered_at > wanted.since)
    if wanted.station is not None:
        query = query.where(InboxEntry.station == wanted.station)
    if wanted.requests is None:
        return [_reply(row) for row in connection.execute(query.limit(wanted.limit))]
    found = {row.event_id: row for row in _about(connection, query, wanted.requests, wanted.limit)}
    newest = sorted(found.values(), key=lambda row: (row.answered_at, row.event_id), reverse=True)
    return [_reply(row) for row in newest[: wanted.limit]]


def _about(
    connection: Connection, query: Select[*tuple[Any, ...]], requests: Mapping[int, str], limit: int
) -> list[Row[Any]]:
    """Replies about requests: by the history, and those without a line of history among the latest `MAX_COMPARED`."""
    in_history = select(RequestEvent.event_id).where(
        RequestEvent.request_id.in_(requests.keys()), RequestEvent.event_id.is_not(None)
    )
    rows = list(connection.execute(query.where(InboxEntry.event_id.in_(in_history)).limit(limit)))
    latest = query.limit(MAX_COMPARED).subquery()
    position = func.strpos if connection.dialect.name == "postgresql" else func.instr
    compared = [position(latest.c.reply, _named(request)) > 0 for request in requests.values()]
    rows += connection.execute(select(latest).where(or_(false(), *compared)).limit(limit))
    return rows


def _named(request: str) -> str:
    """The part of a stored reply that names its request. A text inside a reply cannot contain it: its quotes are escaped."""
    return f'"request":{json.dumps(request, ensure_ascii=False)}'


def quarantined(connection: Connection, limit: int = 20) -> dict[str, Any]:
    """Return the number of quarantined messages without a final decision, and the latest of them without their content."""
    is_open = QuarantinedMessage.state.in_(OPEN_STATES)
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
        .where(is_open)
        .order_by(QuarantinedMessage.received_at.desc(), QuarantinedMessage.id.desc())
        .limit(limit)
    )
    count = connection.execute(select(func.count()).select_from(QuarantinedMessage).where(is_open)).scalar_one()
    return {
        "count": count,
        "messages": [{**row, "received_at": row["received_at"].isoformat()} for row in rows.mappings()],
    }


def stations(connection: Connection, now: datetime) -> list[dict[str, Any]]:
    """Each station with the time of its last reply, and the number of its replies within `COUNTED_PERIOD`."""
    seen = (
        select(
            InboxEntry.station,
            func.max(InboxEntry.answered_at).label("last"),
            func.count().label("replies"),
            func.count().filter(InboxEntry.outcome == Outcome.REFUSED.value).label("refusals"),
        )
        .where(InboxEntry.answered_at > now - COUNTED_PERIOD)
        .group_by(InboxEntry.station)
        .subquery()
    )
    rows = connection.execute(
        select(Station.code, Branch.code.label("branch"), Station.active, seen.c.last, seen.c.replies, seen.c.refusals)
        .join(Branch, Branch.id == Station.branch_id)
        .outerjoin(seen, seen.c.station == Station.code)
        .order_by(Branch.code, Station.code)
    )
    return [
        {
            "station": row.code,
            "branch": row.branch,
            "active": row.active,
            "last_reply": None if row.last is None else row.last.isoformat(),
            "replies": row.replies or 0,
            "refusals": row.refusals or 0,
        }
        for row in rows
    ]


def _reply(row: Any) -> dict[str, Any]:
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
