# SPDX-License-Identifier: Apache-2.0
"""One session, one transaction, and the messages that the commit adds to the outbox."""

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from sqlalchemy import bindparam, delete, insert
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session, sessionmaker
from uuid6 import uuid7

from schemas.models import OutboxEntry, table
from tasks.ports import PendingMessage

Result = TypeVar("Result")

SWEEP_GRACE = timedelta(seconds=10)
"""How long the sweep leaves a new outbox row to the worker that committed it and is publishing it."""

TRANSIENT_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
"""PostgreSQL: serialization failure, deadlock detected, lock not available (Appendix A of its manual)."""


class StaleStateError(Exception):
    """A row has changed since it was read. Running the transaction again decides on its new state."""


class PublishedRows:
    """Outbox rows that the broker has confirmed. The next transaction of the process deletes them.

    A separate transaction would cost as much as a whole Return. If the process dies first, the sweep publishes the
    messages again, which does no harm: recipients discard duplicates.
    """

    def __init__(self) -> None:
        self._ids: list[UUID] = []
        self._lock = threading.Lock()

    def add(self, ids: Iterable[UUID]) -> None:
        """Add rows to be deleted."""
        with self._lock:
            self._ids += ids

    def drain(self) -> list[UUID]:
        """Remove and return all rows; each row is returned once."""
        with self._lock:
            ids, self._ids = self._ids, []
        return ids


_outbox = table(OutboxEntry)
_INSERT = insert(_outbox)
_DELETE = delete(_outbox).where(_outbox.c.id.in_(bindparam("ids", expanding=True)))


@dataclass
class UnitOfWork:
    """One transaction: messages enqueued in it are committed with it, and published only after the commit.

    Use it as a context manager: a normal exit commits, an exception rolls back.
    """

    sessions: sessionmaker[Session]
    now: datetime
    """Aware UTC; one time for the whole transaction."""
    published_rows: PublishedRows = field(default_factory=PublishedRows)
    """Published rows of the outbox, which this commit deletes."""
    pending_messages: list[PendingMessage] = field(default_factory=list)
    """After the commit: the messages to publish, in the order in which they were enqueued."""
    _enqueued: list[PendingMessage] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.session = self.sessions()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self.session.close()

    def enqueue(self, queue: str, body: str, *, task: str | None = None, event_id: UUID | None = None) -> None:
        """Add a message to the outbox in this transaction. `body` is JSON; for a task, its one argument."""
        self._enqueued.append(PendingMessage(uuid7(), queue, task, body, event_id))

    def _commit(self) -> None:
        if self._enqueued:
            self.session.connection().execute(_INSERT, [self._row(message) for message in self._enqueued])
        published = self.published_rows.drain()
        try:
            if published:
                self.session.connection().execute(_DELETE, {"ids": published})
            self.session.commit()
        except BaseException:
            self.published_rows.add(published)
            raise
        self.pending_messages = self._enqueued

    def _row(self, message: PendingMessage) -> dict[str, Any]:
        return {
            "id": message.outbox_id,
            "queue": message.queue,
            "task": message.task,
            "body": message.body,
            "event_id": message.event_id,
            "created_at": self.now,
            "next_attempt_at": self.now + SWEEP_GRACE,
            "attempts": 0,
        }


def is_transient(error: Exception) -> bool:
    """Return True if running the same transaction again may succeed.

    Transient are: deadlock, serialization failure, lock timeout, SQLite busy, and a unique key that a concurrent
    transaction inserted in between (the second run finds its row).
    """
    match error:
        case IntegrityError() | StaleStateError():
            return True
        case OperationalError() if "locked" in str(error.orig) or "busy" in str(error.orig):
            return True
        case DBAPIError():
            return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in TRANSIENT_SQLSTATES
        case _:
            return False


def retry_on_conflict(
    work: Callable[[], Result],
    *,
    tries: int = 4,
    within: float = math.inf,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Run `work` (a whole transaction) up to `tries` times while it fails for a transient reason.

    No run begins later than `within` after the first one. A connection lost during a commit is transient as well: on
    the next run the inbox shows if that commit took place. `within`, `pause` and `clock` are in seconds. Raises the
    last error.
    """
    latest = clock() + within
    for attempt in range(1, tries):
        try:
            return work()
        except (DBAPIError, StaleStateError) as error:
            if not is_transient(error) or clock() >= latest:
                raise
            pause(0.02 * 4**attempt)
    return work()
