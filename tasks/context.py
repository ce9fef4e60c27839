# SPDX-License-Identifier: Apache-2.0
"""The context of a worker process: sessions, clock, publisher, policy. The worker sets it; tasks read it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.orm import Session, sessionmaker

from tasks.metrics.recorder import MetricsRecorder
from tasks.ports import OpenDeadLetters, Publisher, TaskEventEmitter, no_events
from tasks.privacy.policy import RetentionPolicy
from tasks.quarantine.limits import QuarantineLimits
from tasks.unit_of_work import PublishedRows, UnitOfWork
from tasks.webhooks.policy import WebhookPolicy


@dataclass(frozen=True)
class Context:
    """The connections and the policy of one worker process."""

    sessions: sessionmaker[Session]
    now: Callable[[], datetime]
    """Aware UTC."""
    publisher: Publisher
    worker: str
    """Name of the worker process, for leases and logs."""
    published_rows: PublishedRows = field(default_factory=PublishedRows)
    """Outbox rows that the broker has confirmed. The next transaction deletes them."""
    metrics: MetricsRecorder = field(default_factory=MetricsRecorder)
    """Counts and durations of this process, for monitoring."""
    undo_window: timedelta = timedelta(minutes=10)
    patron_card_pattern: str | None = None
    own_branch_only: bool = False
    """Undo and overrides are refused to stations of other branches."""
    slip_expiry: timedelta = timedelta(hours=24)
    """Longest time that a slip may wait for its printer. After that the worker does not send it."""
    dead_letters: OpenDeadLetters | None = None
    """Opens the broker's dead-letter queue; `None` where there is no broker."""
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)
    quarantine_limits: QuarantineLimits = field(default_factory=QuarantineLimits)
    emit_task_event: TaskEventEmitter = no_events
    webhooks: WebhookPolicy = field(default_factory=WebhookPolicy)

    def unit_of_work(self) -> UnitOfWork:
        """Begin a new transaction with the present time."""
        return UnitOfWork(self.sessions, self.now(), self.published_rows)


_current: list[Context] = []


def use(context: Context | None) -> None:
    """Set the context of this process. `None` discards it: a forked child must create its own."""
    _current[:] = [] if context is None else [context]


def current() -> Context:
    """Return the context of this process. Raises `LookupError` outside a worker."""
    if not _current:
        raise LookupError(
            "no worker context: tasks run in a worker started by 'bookdrop worker' or 'celery -A workers.app'"
        )
    return _current[0]
