# SPDX-License-Identifier: Apache-2.0
"""Read-only queries over slips and printers, for operators. They select no patron column."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select
from sqlalchemy.orm import aliased

from schemas.models import Branch, PrintAttempt, Printer, PrintJob, Request, RequestEvent
from schemas.print_jobs import IN_HAND, WAITING, SlipContent
from schemas.print_jobs import PrintState as State
from tasks.printing.messages import describe

UNCONFIRMED = (State.ACCEPTED, State.DONE, State.UNKNOWN)
"""The slip was sent, or may have been sent, and staff have not scanned it at packing."""


@dataclass(frozen=True)
class SlipFilter:
    """The slips to list."""

    states: Collection[State] = ()
    """Empty: all states."""
    blocked: bool = False
    """With `states`: includes requested slips whose printer is on hold or unavailable."""
    branch: str | None = None
    printer: str | None = None
    ids: Collection[UUID] | None = None
    """Only these slips."""
    requests: Collection[int] | None = None
    """Only slips of the requests with these internal ids."""
    limit: int = 50


def slips(connection: Connection, slip_filter: SlipFilter) -> list[dict[str, Any]]:
    """The matching slips, the oldest first. With no states given, the limit keeps the newest ones."""
    query = _filtered(_slip_rows(), slip_filter)
    if slip_filter.states:
        rows = connection.execute(query.order_by(PrintJob.created_at, PrintJob.id).limit(slip_filter.limit)).all()
    else:
        # Ids are UUIDv7, in the order of creation: so the index of the primary key finds the newest.
        last = query.order_by(PrintJob.id.desc()).limit(slip_filter.limit)
        rows = connection.execute(last).all()[::-1]
    return [_summary(row) for row in rows]


def count(connection: Connection, slip_filter: SlipFilter) -> int:
    """The number of matching slips, up to the limit: a library that never packs has very many unconfirmed slips."""
    found = _filtered(select(PrintJob.id).outerjoin(Printer, Printer.id == PrintJob.printer_id), slip_filter)
    return int(
        connection.execute(select(func.count()).select_from(found.limit(slip_filter.limit).subquery())).scalar_one()
    )


def ids(connection: Connection, slip_filter: SlipFilter, allowed: Collection[State]) -> list[UUID]:
    """The ids of the matching slips in one of the `allowed` states whose Return stands, the oldest first, up to the limit."""
    query = _actionable(select(PrintJob.id), slip_filter, allowed)
    return list(connection.scalars(query.order_by(PrintJob.created_at, PrintJob.id).limit(slip_filter.limit)))


def count_all(connection: Connection, slip_filter: SlipFilter, allowed: Collection[State]) -> int:
    """The number of the slips of which `ids` returns the oldest."""
    return int(
        connection.execute(_actionable(select(func.count()).select_from(PrintJob), slip_filter, allowed)).scalar_one()
    )


def slip(connection: Connection, slip_id: UUID) -> dict[str, Any] | None:
    """One slip in full: its state, every attempt, every operator's action; `None` if it does not exist."""
    row = connection.execute(_slip_rows().where(PrintJob.id == slip_id)).one_or_none()
    if row is None:
        return None
    attempts = connection.execute(
        select(PrintAttempt.started_at, PrintAttempt.ended_at, PrintAttempt.outcome, PrintAttempt.error, Printer.code)
        .outerjoin(Printer, Printer.id == PrintAttempt.printer_id)
        .where(PrintAttempt.job_id == slip_id)
        .order_by(PrintAttempt.id)
    )
    lines = connection.execute(
        select(RequestEvent.at, RequestEvent.kind, RequestEvent.note, RequestEvent.details)
        .where(RequestEvent.request_id == row.request_id, RequestEvent.kind.like("slip_%"))
        .order_by(RequestEvent.id)
    )
    copies = connection.execute(
        select(PrintJob.id, PrintJob.copy_number, PrintJob.state)
        .where(PrintJob.item_id == row.item_id, PrintJob.event_id == row.event_id)
        .order_by(PrintJob.copy_number)
    )
    return {
        **_summary(row),
        "spool_id": row.spool_id,
        "attempts": [
            {
                "began": _iso(attempt.started_at),
                "ended": _iso(attempt.ended_at),
                "printer": attempt.code,
                "outcome": attempt.outcome.value if attempt.outcome else None,
                "error": attempt.error,
            }
            for attempt in attempts
        ],
        "decisions": [
            {
                "at": _iso(line.at),
                "what": line.kind,
                "actor": line.details.get("actor"),
                "identified_by": line.details.get("identified_by"),
                "account": line.details.get("account"),
                "reason": line.note,
                "details": line.details,
            }
            for line in lines
            if line.details.get("slip") == str(slip_id)
        ],
        "copies": [{"slip": str(copy.id), "copy": copy.copy_number, "state": copy.state.value} for copy in copies],
    }


def slip_content(connection: Connection, slip_id: UUID) -> tuple[SlipContent, str | None] | None:
    """The text of a slip and its printer's medium, for a preview; `None` if the slip does not exist."""
    row = connection.execute(
        select(PrintJob.content, Printer.media)
        .outerjoin(Printer, Printer.id == PrintJob.printer_id)
        .where(PrintJob.id == slip_id)
    ).one_or_none()
    return None if row is None else (SlipContent.model_validate(row.content), row.media)


def printers(connection: Connection) -> list[dict[str, Any]]:
    """Every printer with its state and the number of its waiting slips."""
    fallback = aliased(Printer)
    rows = connection.execute(
        select(
            Printer.code,
            Branch.code.label("branch"),
            Printer.uri,
            Printer.media,
            Printer.is_default,
            Printer.on_hold,
            Printer.failures,
            Printer.retry_at,
            Printer.trouble,
            fallback.code.label("fallback"),
            func.count(PrintJob.id).label("waiting"),
            func.min(PrintJob.created_at).label("oldest"),
        )
        .join(Branch, Branch.id == Printer.branch_id)
        .outerjoin(fallback, fallback.id == Printer.fallback_id)
        .outerjoin(
            PrintJob,
            and_(
                PrintJob.printer_id == Printer.id,
                PrintJob.state.in_(WAITING | IN_HAND),
                PrintJob.voided_at.is_(None),
            ),
        )
        .group_by(Printer.id, Branch.code, fallback.code)
        .order_by(Branch.code, Printer.code)
    )
    return [
        {
            "printer": row.code,
            "branch": row.branch,
            "uri": row.uri,
            "media": row.media,
            "default": row.is_default,
            "fallback": row.fallback,
            "on_hold": row.on_hold,
            "failures": row.failures,
            "away": row.failures > 0,
            "trouble": row.trouble,
            "waiting": row.waiting,
            "oldest_waits_since": _iso(row.oldest),
        }
        for row in rows
    ]


def _actionable(
    query: Select[*tuple[Any, ...]], slip_filter: SlipFilter, allowed: Collection[State]
) -> Select[*tuple[Any, ...]]:
    found = query.outerjoin(Printer, Printer.id == PrintJob.printer_id)
    return _filtered(found, slip_filter).where(PrintJob.state.in_(allowed), PrintJob.voided_at.is_(None))


def _filtered(query: Select[*tuple[Any, ...]], slip_filter: SlipFilter) -> Select[*tuple[Any, ...]]:
    if slip_filter.states:
        matches: ColumnElement[bool] = PrintJob.state.in_(slip_filter.states)
        if slip_filter.blocked:
            matches |= (PrintJob.state == State.REQUESTED) & (Printer.on_hold | (Printer.failures > 0))
            # Without this condition on one table, no index on the state would be used.
            query = query.where(PrintJob.state.in_({*slip_filter.states, State.REQUESTED}))
        query = query.where(matches, PrintJob.voided_at.is_(None))
    if slip_filter.branch is not None:
        query = query.where(PrintJob.branch == slip_filter.branch)
    if slip_filter.printer is not None:
        query = query.where(Printer.code == slip_filter.printer)
    if slip_filter.ids is not None:
        query = query.where(PrintJob.id.in_(slip_filter.ids))
    if slip_filter.requests is not None:
        query = query.where(PrintJob.request_id.in_(slip_filter.requests))
    return query


def _slip_rows() -> Select[*tuple[Any, ...]]:
    return (
        select(
            PrintJob.id,
            PrintJob.request_id,
            PrintJob.item_id,
            PrintJob.event_id,
            PrintJob.state,
            PrintJob.state_since,
            PrintJob.created_at,
            PrintJob.copy_number,
            PrintJob.branch,
            PrintJob.station,
            PrintJob.last_error,
            PrintJob.attempts,
            PrintJob.next_attempt_at,
            PrintJob.spool_id,
            PrintJob.voided_at,
            PrintJob.content,
            Request.external_id,
            Printer.code.label("printer"),
        )
        .join(Request, Request.id == PrintJob.request_id)
        .outerjoin(Printer, Printer.id == PrintJob.printer_id)
    )


def _summary(row: Any) -> dict[str, Any]:
    return {
        "slip": str(row.id),
        "state": row.state.value,
        "since": _iso(row.state_since),
        "words": "Its Return was undone" if row.voided_at else describe(row.state, row.printer, row.last_error),
        "why": row.last_error,
        "request": row.external_id,
        "event": str(row.event_id),
        "title": row.content.get("title"),
        "barcode": row.content.get("barcode"),
        "delivery_code": row.content.get("delivery_code"),
        "copy": row.copy_number,
        "branch": row.branch,
        "printer": row.printer,
        "station": row.station,
        "tries": row.attempts,
        "next_try": _iso(row.next_attempt_at),
        "voided": _iso(row.voided_at),
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
