# SPDX-License-Identifier: Apache-2.0
"""What there is to tell of slips and printers, for operations. Queries that name no patron column."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select
from sqlalchemy.orm import aliased

from schemas.models import Branch, PrintAttempt, Printer, PrintJob, Request, RequestEvent
from schemas.print_jobs import IN_HAND, WAITING
from schemas.print_jobs import PrintState as State
from tasks.printing import state_machine as rules
from tasks.printing.messages import words

UNSEEN = (State.ACCEPTED, State.DONE, State.UNKNOWN)
"""Sent, or perhaps sent, and not scanned at packing."""


@dataclass(frozen=True)
class Wanted:
    """Which slips to list."""

    states: Collection[State] = ()
    """Empty: all."""
    blocked: bool = False
    """Beside them those that were not tried yet because their printer is on hold or away."""
    branch: str | None = None
    printer: str | None = None
    limit: int = 50


def slips(connection: Connection, wanted: Wanted) -> list[dict[str, Any]]:
    """The slips, the oldest first; of all of them the newest, when no states are given."""
    query = _fitting(_slips(), wanted)
    if wanted.states:
        rows = connection.execute(query.order_by(PrintJob.created_at, PrintJob.id).limit(wanted.limit)).all()
    else:
        last = query.order_by(PrintJob.created_at.desc(), PrintJob.id.desc()).limit(wanted.limit)
        rows = connection.execute(last).all()[::-1]
    return [_summary(row) for row in rows]


def count(connection: Connection, wanted: Wanted) -> int:
    """How many slips there are of the wanted, up to its limit: a library that never packs has a great many unconfirmed."""
    found = _fitting(select(PrintJob.id).outerjoin(Printer, Printer.id == PrintJob.printer_id), wanted)
    return int(connection.execute(select(func.count()).select_from(found.limit(wanted.limit).subquery())).scalar_one())


def slip(connection: Connection, slip_id: UUID) -> dict[str, Any] | None:
    """All there is to tell of one slip: where it is, every try, every decision about it; `None` if there is none."""
    row = connection.execute(_slips().where(PrintJob.id == slip_id)).one_or_none()
    if row is None:
        return None
    tries = connection.execute(
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
                "began": _iso(each.started_at),
                "ended": _iso(each.ended_at),
                "printer": each.code,
                "outcome": each.outcome.value if each.outcome else None,
                "error": each.error,
            }
            for each in tries
        ],
        "decisions": [
            {
                "at": _iso(each.at),
                "what": each.kind,
                "actor": each.details.get("actor"),
                "reason": each.note,
                "details": each.details,
            }
            for each in lines
            if each.details.get("slip") == str(slip_id)
        ],
        "copies": [{"slip": str(each.id), "copy": each.copy_number, "state": each.state.value} for each in copies],
    }


def printers(connection: Connection, now: datetime) -> list[dict[str, Any]]:
    """Every printer, how it does, and what waits for it."""
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
            "away": rules.is_away(row.failures, row.retry_at, now) or row.failures > 0,
            "trouble": row.trouble,
            "waiting": row.waiting,
            "oldest_waits_since": _iso(row.oldest),
        }
        for row in rows
    ]


def _fitting(query: Select[*tuple[Any, ...]], wanted: Wanted) -> Select[*tuple[Any, ...]]:
    if wanted.states:
        fits: ColumnElement[bool] = PrintJob.state.in_(wanted.states)
        if wanted.blocked:
            fits |= (PrintJob.state == State.REQUESTED) & (Printer.on_hold | (Printer.failures > 0))
        query = query.where(fits, PrintJob.voided_at.is_(None))
    if wanted.branch is not None:
        query = query.where(PrintJob.branch == wanted.branch)
    if wanted.printer is not None:
        query = query.where(Printer.code == wanted.printer)
    return query


def _slips() -> Select[*tuple[Any, ...]]:
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
        "words": "Its Return was undone" if row.voided_at else words(row.state, row.printer, row.last_error),
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
