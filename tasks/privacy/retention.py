# SPDX-License-Identifier: Apache-2.0
"""Erase content whose retention is over, in bounded batches. The rows stay. May run twice and concurrently.

A position in the table `retention` divides what is done from what is not, so that no step reads an erased row again.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from schemas.models import InboxEntry, PrintJob, Request, RequestEvent, RetentionProgress, table
from schemas.request_status import CLOSED
from tasks.context import Context
from tasks.metrics import definitions
from tasks.privacy.digest import barcode_digest
from tasks.privacy.policy import ContentKind, RetentionPolicy
from tasks.privacy.stored_reply import outcome_only, without_unmatched_text
from tasks.unit_of_work import UnitOfWork

BATCH_SIZE: Final = 500
"""Rows that one transaction reads; events with the same time stay together."""
MAX_BATCHES: Final = 20
"""Transactions of one kind in one run. The next run continues where this one ended."""
TEXT_DETAILS: Final = frozenset({"override", "actor", "account"})
"""Keys of a history entry's details that contain names and typed texts; all others contain ids, codes and numbers."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Step:
    """The result of one batch."""

    position: int
    """Where the next batch begins."""
    erased: int
    """Rows whose content was erased."""
    complete: bool
    """True if nothing is left whose retention is over."""


EraseBatch = Callable[[UnitOfWork, int, RetentionPolicy], Step]


def erase_expired(context: Context) -> Mapping[ContentKind, int]:
    """Erase content whose retention is over; return the number of erased rows by kind."""
    erased: Counter[ContentKind] = Counter()
    for kind, erase in _BATCHES.items():
        for _ in range(MAX_BATCHES):
            step = _run(kind, erase, context)
            erased[kind] += step.erased
            if step.complete:
                break
        if erased[kind]:
            context.metrics.count(definitions.ERASED, kind.value, erased[kind])
    return erased


def _run(kind: ContentKind, erase: EraseBatch, context: Context) -> Step:
    """One batch in one transaction. While another worker holds the kind's row, there is nothing to do."""
    with context.unit_of_work() as uow:
        position = uow.session.scalar(
            select(RetentionProgress.position).where(RetentionProgress.kind == kind).with_for_update(skip_locked=True)
        )
        if position is None:
            return Step(0, 0, complete=True)
        step = erase(uow, position, context.retention)
        values: dict[str, Any] = {"position": max(position, step.position)}
        if step.complete:
            values["complete_at"] = uow.now
        uow.session.execute(update(RetentionProgress).where(RetentionProgress.kind == kind).values(values))
    return step


def _erase_unknown_barcodes(uow: UnitOfWork, position: int, policy: RetentionPolicy) -> Step:
    window = _by_time(uow.session, InboxEntry.answered_at, position, uow.now - policy.unknown_barcodes)
    rows = uow.session.execute(
        select(InboxEntry.event_id, InboxEntry.reply).where(window.rows, InboxEntry.outcome == "refused")
    ).all()
    changes = [
        {
            "key": row.event_id,
            "reply": changed.reply,
            "fingerprint": "",
            "barcode_digest": barcode_digest(changed.text, policy.key) if changed.text and policy.key else None,
        }
        for row in rows
        if (changed := without_unmatched_text(row.reply)) is not None
    ]
    _update(uow.session, table(InboxEntry), InboxEntry.event_id, changes)
    return window.step(len(changes))


def _erase_replies(uow: UnitOfWork, position: int, policy: RetentionPolicy) -> Step:
    window = _by_time(uow.session, InboxEntry.answered_at, position, uow.now - policy.replies)
    rows = uow.session.execute(select(InboxEntry.event_id, InboxEntry.reply).where(window.rows)).all()
    changes = [{"key": row.event_id, "reply": reply} for row in rows if (reply := outcome_only(row.reply)) is not None]
    _update(uow.session, table(InboxEntry), InboxEntry.event_id, changes)
    return window.step(len(changes))


def _erase_history_notes(uow: UnitOfWork, position: int, policy: RetentionPolicy) -> Step:
    """History entries have increasing ids, and their times increase with them."""
    rows = uow.session.execute(
        select(RequestEvent.id, RequestEvent.recorded_at, RequestEvent.note, RequestEvent.details)
        .where(RequestEvent.id > position)
        .order_by(RequestEvent.id)
        .limit(BATCH_SIZE)
    ).all()
    due = [row for row in rows if row.recorded_at <= uow.now - policy.notes]
    changes = [
        {"key": row.id, "note": None, "details": without_texts(row.details)}
        for row in due
        if row.note is not None or TEXT_DETAILS & set(row.details)
    ]
    _update(uow.session, table(RequestEvent), RequestEvent.id, changes)
    return Step(due[-1].id if due else position, len(changes), complete=len(due) < BATCH_SIZE)


def _erase_slip_notes(uow: UnitOfWork, position: int, policy: RetentionPolicy) -> Step:
    """Ids of print jobs are UUIDv7, which contain the time of their creation. `position` is such a time."""
    start, end = position // 1000, (uow.now - policy.notes - _EPOCH) // _MILLISECOND
    due = PrintJob.id >= _first_id(start)
    last = uow.session.scalar(
        select(PrintJob.id)
        .where(due, PrintJob.id < _first_id(end))
        .order_by(PrintJob.id)
        .limit(1)
        .offset(BATCH_SIZE - 1)
    )
    if last is not None:
        end = (last.int >> 80) + 1
    rows = uow.session.execute(
        select(PrintJob.id, PrintJob.content, PrintJob.reason, PrintJob.actor).where(due, PrintJob.id < _first_id(end))
    ).all()
    changes = [
        {"key": row.id, "content": {**row.content, "damage_note": None}, "reason": None, "actor": None}
        for row in rows
        if row.content.get("damage_note") is not None or row.reason is not None or row.actor is not None
    ]
    _update(uow.session, table(PrintJob), PrintJob.id, changes)
    return Step(end * 1000, len(changes), complete=last is None)


def _erase_damage_notes(uow: UnitOfWork, position: int, policy: RetentionPolicy) -> Step:
    """A request that changes gets a later time, so it is visited again."""
    window = _by_time(uow.session, Request.updated_at, position, uow.now - policy.notes)
    rows = uow.session.scalars(
        select(Request.id).where(window.rows, Request.status.in_(CLOSED), Request.damage_note.is_not(None))
    ).all()
    _update(uow.session, table(Request), Request.id, [{"key": number, "damage_note": None} for number in rows])
    return window.step(len(rows))


_BATCHES: Final[Mapping[ContentKind, EraseBatch]] = MappingProxyType(
    {
        ContentKind.UNKNOWN_BARCODES: _erase_unknown_barcodes,
        ContentKind.REPLIES: _erase_replies,
        ContentKind.HISTORY_NOTES: _erase_history_notes,
        ContentKind.SLIP_NOTES: _erase_slip_notes,
        ContentKind.DAMAGE_NOTES: _erase_damage_notes,
    }
)


def without_texts(details: Mapping[str, Any]) -> dict[str, Any]:
    """The details of a history entry, with null in place of each typed text."""
    return {key: _blank(value) if key in TEXT_DETAILS else value for key, value in details.items()}


def _blank(value: Any) -> Any:
    match value:
        case str():
            return None
        case dict():
            return {key: _blank(each) for key, each in value.items()}
        case list():
            return [_blank(each) for each in value]
        case _:
            return value


@dataclass(frozen=True)
class _Window:
    """The rows of one batch, by a column with times."""

    rows: ColumnElement[bool]
    end: int
    complete: bool

    def step(self, erased: int) -> Step:
        return Step(self.end, erased, self.complete)


def _by_time(session: Session, column: InstrumentedAttribute[datetime], position: int, until: datetime) -> _Window:
    """The window after `position`, in microseconds since 1970, of about `BATCH_SIZE` rows, at most until `until`."""
    after = column > _EPOCH + position * _MICROSECOND
    last = session.scalar(select(column).where(after, column <= until).order_by(column).limit(1).offset(BATCH_SIZE - 1))
    end = until if last is None else last
    return _Window(after & (column <= end), (end - _EPOCH) // _MICROSECOND, complete=last is None)


def _first_id(milliseconds: int) -> UUID:
    """The smallest UUIDv7 of a time."""
    return UUID(int=max(milliseconds, 0) << 80)


def _update(session: Session, rows: Any, key: InstrumentedAttribute[Any], changes: list[dict[str, Any]]) -> None:
    """Update each row by its key, in one statement for all."""
    if changes:
        values: dict[str, Any] = {name: bindparam(name) for name in changes[0] if name != "key"}
        session.connection().execute(update(rows).where(rows.c[key.key] == bindparam("key")).values(values), changes)
