# SPDX-License-Identifier: Apache-2.0
"""Housekeeping of the quarantine: collect dead letters, settle retried messages, erase expired bodies.

Each step may run twice and concurrently, and a killed step loses nothing: the broker keeps a letter until its row is
committed, and the letter's digest keeps it from getting a second row.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, insert, or_, select, update

from schemas import signing
from schemas.models import InboxEntry, QuarantinedMessage, RetentionProgress, table
from schemas.topology import RETURNS_QUEUE
from tasks.context import Context
from tasks.metrics.definitions import DEAD_LETTERS, QUARANTINE_ERASED
from tasks.ports import DeadLetter
from tasks.privacy.policy import ContentKind
from tasks.quarantine.dead_letter import quarantine_row
from tasks.quarantine.limits import enforce_limits
from tasks.quarantine.store import ERASED_CONTENT, OPEN_STATES
from tasks.unit_of_work import UnitOfWork, retry_on_conflict

BATCH_SIZE: Final = 200
"""Letters or rows that one transaction handles."""
RECORD_RETENTION: Final = timedelta(days=365)
"""Age at which the row of a closed message is deleted, counted from its arrival."""

_quarantine = table(QuarantinedMessage)


@dataclass(frozen=True)
class SweepResult:
    """Counts of one sweep."""

    collected: int
    """Dead letters that have a row now."""
    settled: int
    """Retried messages whose reply is stored."""
    erased: int
    """Bodies whose retention ended."""
    over_limit: int
    """Bodies that were erased because the quarantine is full."""


def sweep(context: Context) -> SweepResult:
    """Collect, settle and erase."""
    collected = collect_dead_letters(context)
    with context.unit_of_work() as uow:
        settled = settle_retried(uow)
        erased = erase_expired(uow, context.retention.quarantine)
        over_limit = enforce_limits(uow, context.quarantine_limits)
    context.metrics.count(QUARANTINE_ERASED, number=over_limit)
    return SweepResult(collected, settled, erased, over_limit)


def collect_dead_letters(context: Context, *, limit: int = 5_000) -> int:
    """Move the broker's dead letters into the table, at most about `limit`; return their number."""
    if context.dead_letters is None:
        return 0
    total = 0
    with context.dead_letters() as letters:
        while total < limit:
            found = letters.peek(BATCH_SIZE)
            if not found:
                break
            new = retry_on_conflict(lambda found=found: _write(found, context))  # type: ignore[misc]
            for reason, number in new.items():
                context.metrics.count(DEAD_LETTERS, reason, number)
            letters.remove(found)
            total += len(found)
    return total


def _write(letters: Sequence[DeadLetter], context: Context) -> Counter[str]:
    """Insert the letters that have no row; return their number by reason."""
    rows = {row["letter"]: row for row in map(quarantine_row, letters)}
    times = Counter(letter.digest for letter in letters)
    with context.unit_of_work() as uow:
        stored = set(
            uow.session.scalars(select(QuarantinedMessage.letter).where(QuarantinedMessage.letter.in_(list(rows))))
        )
        new = [
            {**row, "received_at": uow.now, "times": times[digest]}
            for digest, row in rows.items()
            if digest not in stored
        ]
        if new:
            uow.session.execute(insert(_quarantine), new)
    return Counter(str(row["reason"]) for row in new)


def settle_retried(uow: UnitOfWork) -> int:
    """Close retried events whose reply is stored, and erase their bodies; return their number."""
    retried = uow.session.execute(
        select(QuarantinedMessage.id, QuarantinedMessage.event_id, QuarantinedMessage.body, QuarantinedMessage.envelope)
        .where(QuarantinedMessage.state == "retried", QuarantinedMessage.queue == RETURNS_QUEUE)
        .order_by(QuarantinedMessage.id)
        .limit(BATCH_SIZE)
        .with_for_update(skip_locked=True)
    ).all()
    events = {
        row.id: event for row in retried if (event := _stored_event(row.event_id, row.body, row.envelope)) is not None
    }
    if not events:
        return 0
    event_ids = [event_id for event_id, _ in events.values()]
    processed = {
        (row.event_id, row.fingerprint)
        for row in uow.session.execute(
            select(InboxEntry.event_id, InboxEntry.fingerprint).where(InboxEntry.event_id.in_(event_ids))
        )
    }
    settled = [number for number, event in events.items() if event in processed]
    if settled:
        uow.session.execute(
            update(_quarantine)
            .where(_quarantine.c.id.in_(settled))
            .values(state="settled", **ERASED_CONTENT, erased_at=uow.now)
        )
    return len(settled)


def _stored_event(event_id: str | None, body: str, envelope: str | None) -> tuple[UUID, str] | None:
    """Id and fingerprint of the event that a row holds; `None` when it holds no event."""
    try:
        payload = json.loads(body)
        if envelope is not None:
            payload = payload[0][0]
        return UUID(event_id or ""), signing.fingerprint(payload)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def erase_expired(uow: UnitOfWork, retention: timedelta) -> int:
    """Erase the bodies of messages that waited longer than `retention`; return their number, at most `BATCH_SIZE`.

    Also delete as many rows of closed messages that are older than `RECORD_RETENTION`.
    """
    expired = _first(
        _quarantine.c.state.in_(OPEN_STATES),
        _quarantine.c.received_at <= uow.now - retention,
        or_(_quarantine.c.last_at.is_(None), _quarantine.c.last_at <= uow.now - retention),
    )
    erased = uow.session.execute(
        update(_quarantine).where(expired).values(state="expired", **ERASED_CONTENT, erased_at=uow.now)
    ).rowcount  # type: ignore[attr-defined]  # missing in its stubs
    uow.session.execute(
        delete(_quarantine).where(
            _first(_quarantine.c.state.not_in(OPEN_STATES), _quarantine.c.received_at <= uow.now - RECORD_RETENTION)
        )
    )
    if erased < BATCH_SIZE:
        uow.session.execute(
            update(RetentionProgress)
            .where(RetentionProgress.kind == ContentKind.QUARANTINE)
            .values(complete_at=uow.now)
        )
    return int(erased)


def _first(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition that selects the first rows that satisfy `conditions` and that no transaction has locked."""
    ids = select(_quarantine.c.id).where(*conditions).order_by(_quarantine.c.id).limit(BATCH_SIZE)
    return _quarantine.c.id.in_(ids.with_for_update(skip_locked=True))
