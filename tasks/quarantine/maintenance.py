# SPDX-License-Identifier: Apache-2.0
"""One list of everything: dead letters are gathered, what was retried is settled, bodies are let go of in time.

Each is safe to run twice and side by side, and loses nothing when it is killed: a letter leaves the broker when its row is
committed, and is told from others by its digest.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, insert, or_, select, update

from schemas import signing
from schemas.models import InboxEntry, QuarantinedMessage, table
from schemas.topology import RETURNS_QUEUE
from tasks.context import Context
from tasks.ports import DeadLetter
from tasks.quarantine.dead_letter import row_of
from tasks.quarantine.store import OPEN
from tasks.unit_of_work import UnitOfWork, retry_on_conflict

AT_ONCE: Final = 200
"""How many letters one transaction takes."""
RECORD_KEPT: Final = timedelta(days=365)
"""How long the record of a decision outlives the body."""

_quarantine = table(QuarantinedMessage)


@dataclass(frozen=True)
class Swept:
    """What one sweep did."""

    gathered: int
    """Dead letters that have a row now."""
    settled: int
    """Retried messages that were answered."""
    erased: int
    """Bodies whose time was over."""


def sweep(here: Context) -> Swept:
    """Do all three."""
    gathered = gather(here)
    with here.unit_of_work() as uow:
        settled = settle(uow)
        erased = let_go(uow, here.quarantine_retention)
    return Swept(gathered, settled, erased)


def gather(here: Context, *, limit: int = 5_000) -> int:
    """Bring the broker's dead letters into the table, at most `limit`; give how many."""
    if here.dead_letters is None:
        return 0
    total = 0
    with here.dead_letters() as letters:
        while total < limit:
            found = letters.peek(AT_ONCE)
            if not found:
                break
            retry_on_conflict(lambda found=found: _write(found, here))  # type: ignore[misc]
            letters.remove(found)
            total += len(found)
    return total


def _write(letters: Sequence[DeadLetter], here: Context) -> None:
    rows = {row["letter"]: row for row in map(row_of, letters)}
    times = Counter(letter.digest for letter in letters)
    with here.unit_of_work() as uow:
        known = set(
            uow.session.scalars(select(QuarantinedMessage.letter).where(QuarantinedMessage.letter.in_(list(rows))))
        )
        fresh = [
            {**row, "received_at": uow.now, "times": times[digest]}
            for digest, row in rows.items()
            if digest not in known
        ]
        if fresh:
            uow.session.execute(insert(_quarantine), fresh)


def settle(uow: UnitOfWork) -> int:
    """Close what was retried and has its answer, and let go of its body; give how many."""
    waiting = uow.session.execute(
        select(QuarantinedMessage.id, QuarantinedMessage.event_id, QuarantinedMessage.body, QuarantinedMessage.envelope)
        .where(QuarantinedMessage.state == "retried", QuarantinedMessage.queue == RETURNS_QUEUE)
        .order_by(QuarantinedMessage.id)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    ).all()
    events = {row.id: event for row in waiting if (event := _event(row.event_id, row.body, row.envelope)) is not None}
    if not events:
        return 0
    wanted = [event_id for event_id, _ in events.values()]
    answered = {
        (row.event_id, row.fingerprint)
        for row in uow.session.execute(
            select(InboxEntry.event_id, InboxEntry.fingerprint).where(InboxEntry.event_id.in_(wanted))
        )
    }
    done = [number for number, event in events.items() if event in answered]
    if done:
        uow.session.execute(
            update(_quarantine)
            .where(_quarantine.c.id.in_(done))
            .values(state="settled", body="", envelope=None, erased_at=uow.now)
        )
    return len(done)


def _event(event_id: str | None, body: str, envelope: str | None) -> tuple[UUID, str] | None:
    """Id and fingerprint of the event that a row holds."""
    try:
        payload = json.loads(body)
        if envelope is not None:
            payload = payload[0][0]
        return UUID(event_id or ""), signing.fingerprint(payload)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def let_go(uow: UnitOfWork, kept: timedelta) -> int:
    """Erase bodies that were kept for longer than `kept`, and rows whose record is no longer wanted; give how many."""
    erased = uow.session.execute(
        update(_quarantine)
        .where(
            _quarantine.c.state.in_(OPEN),
            _quarantine.c.received_at <= uow.now - kept,
            or_(_quarantine.c.last_at.is_(None), _quarantine.c.last_at <= uow.now - kept),
        )
        .values(state="expired", body="", envelope=None, erased_at=uow.now)
    ).rowcount  # type: ignore[attr-defined]  # missing in its stubs
    uow.session.execute(
        delete(_quarantine).where(_quarantine.c.state.not_in(OPEN), _quarantine.c.received_at <= uow.now - RECORD_KEPT)
    )
    return int(erased)
