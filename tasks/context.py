# SPDX-License-Identifier: Apache-2.0
"""What a task needs from its worker: sessions, a clock, a way to publish. Set by the worker, asked for by tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy.orm import Session, sessionmaker

from tasks.unit_of_work import PendingMessage, UnitOfWork


class Publisher(Protocol):
    """Gives promised messages to the broker."""

    def publish_outbox(self, entries: Sequence[PendingMessage]) -> int:
        """Publish `entries` in order and delete the rows of those the broker has; return how many.

        Never raises for a broker that is away: what could not be published stays for the sweep.
        """


@dataclass(frozen=True)
class Context:
    """One worker process's connections and rules."""

    sessions: sessionmaker[Session]
    now: Callable[[], datetime]
    """Aware UTC."""
    publish: Publisher
    worker: str
    """Name of the worker process, for leases and logs."""
    undo_window: timedelta = timedelta(minutes=10)
    patron_card_pattern: str | None = None

    def unit_of_work(self) -> UnitOfWork:
        """A new transaction, at this moment."""
        return UnitOfWork(self.sessions, self.now())


_current: list[Context] = []


def use(context: Context | None) -> None:
    """Make `context` the one of this process; `None` forgets it (a forked child must make its own)."""
    _current[:] = [] if context is None else [context]


def current() -> Context:
    """The context of this process. Raises `LookupError` outside a worker."""
    if not _current:
        raise LookupError(
            "no worker context: tasks run in a worker started by 'bookdrop worker' or 'celery -A workers.app'"
        )
    return _current[0]
