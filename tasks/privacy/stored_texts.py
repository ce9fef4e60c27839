# SPDX-License-Identifier: Apache-2.0
"""The free texts of the database: find those that name a patron, and their values without the patron."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import ColumnElement, Text, and_, cast, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from schemas.database import READ_ONLY
from schemas.models import (
    InboxEntry,
    Model,
    OutboxEntry,
    PrintAttempt,
    PrintJob,
    QuarantinedMessage,
    Request,
    RequestEvent,
    table,
)
from tasks.context import Context
from tasks.privacy.free_text import PatronText
from tasks.privacy.stored_reply import without_unmatched_text
from tasks.quarantine.dead_letter import decode_body
from tasks.quarantine.store import ERASED_CONTENT, OPEN_STATES

BATCH_SIZE: Final = 2_000
"""Rows that one statement searches."""
DECIDED_BY: Final = "bookdrop patrons forget"
"""Recorded as the operator of a quarantined message whose content was erased."""


@dataclass(frozen=True)
class SearchedTable:
    """A table with free texts."""

    model: type[Model]
    key: InstrumentedAttribute[Any]
    texts: tuple[ColumnElement[Any] | InstrumentedAttribute[Any], ...]
    where: ColumnElement[bool] | None = None
    """Only these rows can contain typed or scanned text."""
    in_full: bool = False
    """True if each row is examined, because the database cannot find a text behind the escapes of a message."""


SEARCHED: Final[Mapping[str, SearchedTable]] = MappingProxyType(
    {
        "inbox": SearchedTable(InboxEntry, InboxEntry.event_id, (InboxEntry.reply,), InboxEntry.outcome == "refused"),
        "outbox": SearchedTable(OutboxEntry, OutboxEntry.id, (OutboxEntry.body,)),
        "quarantine": SearchedTable(QuarantinedMessage, QuarantinedMessage.id, (), in_full=True),
        "request_events": SearchedTable(
            RequestEvent, RequestEvent.id, (RequestEvent.note, cast(RequestEvent.details, Text))
        ),
        "requests.damage_note": SearchedTable(Request, Request.id, (Request.damage_note,)),
        "print_jobs": SearchedTable(
            PrintJob, PrintJob.id, (cast(PrintJob.content, Text), PrintJob.reason, PrintJob.actor, PrintJob.last_error)
        ),
        "print_attempts": SearchedTable(PrintAttempt, PrintAttempt.id, (PrintAttempt.error,)),
    }
)
"""Every table with a free text. Texts of partners, branches and titles are data of the library and are not searched."""


_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"request_events": ("note", "details"), "requests.damage_note": ("damage_note",), "print_attempts": ("error",)}
)


def find(name: str, wanted: PatronText, context: Context) -> Iterator[Sequence[Any]]:
    """Keys of rows that may name the patron, for each part of the table. `changes` decides about a row."""
    searched = SEARCHED[name]
    matches = [
        func.lower(text, type_=Text()).contains(form, autoescape=True)
        for text in searched.texts
        for form in _lower(wanted)
    ]
    last = None
    while True:
        with context.sessions() as session:
            session.connection(execution_options=READ_ONLY)
            part = select(searched.key).order_by(searched.key).limit(BATCH_SIZE)
            if last is not None:
                part = part.where(searched.key > last)
            keys = session.scalars(part).all()
            if not keys:
                return
            if not searched.in_full:
                among = and_(searched.key >= keys[0], searched.key <= keys[-1], or_(*matches))
                if searched.where is not None:
                    among &= searched.where
                found = session.scalars(select(searched.key).where(among)).all()
            else:
                found = keys
        if found:
            yield found
        last = keys[-1]


def rows(session: Session, name: str, keys: Sequence[Any]) -> Sequence[Any]:
    """The rows with `keys`, locked."""
    target = table(SEARCHED[name].model)
    key = target.c[SEARCHED[name].key.key]
    return session.execute(select(target).where(key.in_(keys)).order_by(key).with_for_update()).all()


def changes(name: str, row: Any, wanted: PatronText, now: datetime) -> dict[str, Any]:
    """New values of the columns of `row` that name the patron; empty if none does."""
    changed: dict[str, Any]
    match name:
        case "inbox":
            changed = _changed_reply(row.reply, "reply", wanted, {"fingerprint": "", "barcode_digest": None})
        case "outbox":
            changed = _changed_reply(row.body, "body", wanted, {}) if row.task is None else {}
        case "quarantine":
            changed = _changed_message(row, wanted, now)
        case "print_jobs":
            changed = _erased(row, ("reason", "actor", "last_error"), wanted)
            note = row.content.get("damage_note")
            if wanted.names(note):
                changed["content"] = {**row.content, "damage_note": wanted.erase(note)}
        case _:
            changed = _erased(row, _COLUMNS[name], wanted)
    return changed


def _erased(row: Any, columns: Sequence[str], wanted: PatronText) -> dict[str, Any]:
    values = {name: wanted.erase(getattr(row, name)) for name in columns}
    return {name: value for name, value in values.items() if value != getattr(row, name)}


def _changed_reply(reply: str, column: str, wanted: PatronText, more: Mapping[str, Any]) -> dict[str, Any]:
    """A reply contains typed or scanned text if that matched nothing; other replies contain data of the library.

    No hash of the text is kept: it is known to be a patron's number.
    """
    changed = without_unmatched_text(reply) if wanted.names(reply) else None
    return {} if changed is None or changed.reply == reply else {column: changed.reply, **more}


def _changed_message(row: Any, wanted: PatronText, now: datetime) -> dict[str, Any]:
    """A message cannot be changed, because it is signed. So its content is erased, and it needs no decision any more."""
    changed = _erased(row, ("decision_reason", "station", "reply_to"), wanted)
    body = row.body if row.encoding == "text" else decode_body(row.body, row.encoding).decode(errors="replace")
    if any(map(wanted.named_in, (body, row.envelope or "", row.detail))):
        changed |= {**ERASED_CONTENT, "erased_at": now}
        if row.state in OPEN_STATES:
            changed |= {"state": "dropped", "decided_at": now, "decided_by": DECIDED_BY}
    return changed


def _lower(wanted: PatronText) -> list[str]:
    """The forms to search for, in lower case. SQLite changes the case of ASCII letters only."""
    forms = wanted.stored_forms
    ascii_lower = ("".join(char.lower() if char.isascii() else char for char in form) for form in forms)
    return list(dict.fromkeys((*ascii_lower, *(form.lower() for form in forms))))
