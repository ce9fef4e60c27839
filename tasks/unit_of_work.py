# SPDX-License-Identifier: Apache-2.0
"""One session, one transaction, and the messages that its commit promises."""

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
"""How long the sweep leaves a fresh promise to the worker that is just publishing it."""

TRANSIENT_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
"""PostgreSQL: serialization failure, deadlock detected, lock not available (Appendix A of its manual)."""


class StaleStateError(Exception):
    """A row is no longer as it was read: somebody changed it in between. Running again decides anew."""


class PublishedRows:
    """Outbox rows that the broker has, on their way out: the next transaction takes them along.

    A transaction of their own would cost as much as a whole Return. When the process dies before, the sweep
    publishes them once more, which does no harm.
    """

    def __init__(self) -> None:
        self._ids: list[UUID] = []
        self._lock = threading.Lock()

    def add(self, ids: Iterable[UUID]) -> None:
        """Note rows that may go."""
        with self._lock:
            self._ids += ids

    def take(self) -> list[UUID]:
        """Give all of them, once."""
        with self._lock:
            ids, self._ids = self._ids, []
        return ids


_outbox = table(OutboxEntry)
_PROMISE = insert(_outbox)
_LET_GO = delete(_outbox).where(_outbox.c.id.in_(bindparam("ids", expanding=True)))


@dataclass
class UnitOfWork:
    """One transaction: what is said in it is committed with it, and given out only after the commit.

    Use as a context manager; leaving it normally commits, leaving it by an exception rolls back.
    """

    sessions: sessionmaker[Session]
    now: datetime
    """Aware UTC; one time for the whole transaction."""
    settled: PublishedRows = field(default_factory=PublishedRows)
    """Published rows of the outbox, which this commit deletes."""
    pending_messages: list[PendingMessage] = field(default_factory=list)
    """After the commit: what is to be published, in the order it was said."""
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
        """Promise a message: a row in this transaction. `body` is JSON; for a task, its one argument."""
        self._enqueued.append(PendingMessage(uuid7(), queue, task, body, event_id))

    def _commit(self) -> None:
        if self._enqueued:
            self.session.connection().execute(_PROMISE, [self._row(message) for message in self._enqueued])
        settled = self.settled.take()
        try:
            if settled:
                self.session.connection().execute(_LET_GO, {"ids": settled})
            self.session.commit()
        except BaseException:
            self.settled.add(settled)
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
    """Tell whether running the same transaction again may succeed.

    Deadlock, serialization failure, a lock not had in time, SQLite busy, and a unique key that another
    transaction took in between (the second run finds its row).
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
    work: Callable[[], Result], *, tries: int = 4, pause: Callable[[float], None] = time.sleep
) -> Result:
    """Run `work` (a whole transaction) up to `tries` times while it fails for a transient reason.

    A connection lost during a commit is among them: whether that commit took place is told by the inbox
    the next time. Raises the last error.
    """
    for attempt in range(1, tries):
        try:
            return work()
        except (DBAPIError, StaleStateError) as error:
            if not is_transient(error):
                raise
            pause(0.02 * 4**attempt)
    return work()
