# SPDX-License-Identifier: Apache-2.0
"""What a task needs from its worker: sessions, a clock, a way to publish. Set by the worker, asked for by tasks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.orm import Session, sessionmaker

from tasks.metrics.recorder import MetricsRecorder
from tasks.ports import OpenDeadLetters, Publisher, TaskEventEmitter, no_events
from tasks.unit_of_work import PublishedRows, UnitOfWork


@dataclass(frozen=True)
class Context:
    """One worker process's connections and rules."""

    sessions: sessionmaker[Session]
    now: Callable[[], datetime]
    """Aware UTC."""
    publish: Publisher
    worker: str
    """Name of the worker process, for leases and logs."""
    settled: PublishedRows = field(default_factory=PublishedRows)
    """Published rows of the outbox, which go with the next transaction."""
    tally: MetricsRecorder = field(default_factory=MetricsRecorder)
    """What this process counts and times, for monitoring."""
    undo_window: timedelta = timedelta(minutes=10)
    patron_card_pattern: str | None = None
    slip_life: timedelta = timedelta(hours=24)
    """How long a slip may wait for its printer before it is not sent any more."""
    letters: OpenDeadLetters | None = None
    """The broker's dead letters; `None` where there is no broker."""
    quarantine_kept: timedelta = timedelta(days=30)
    """How long what a quarantined message says is kept while nobody decides about it."""
    announce: TaskEventEmitter = no_events

    def unit_of_work(self) -> UnitOfWork:
        """A new transaction, at this moment."""
        return UnitOfWork(self.sessions, self.now(), self.settled)


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
