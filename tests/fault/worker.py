# SPDX-License-Identifier: Apache-2.0
"""A worker process with failpoints: the program's own `bookdrop worker`, wrapped from outside.

The program has no hooks for this. Before the command runs, functions that every event, slip and sweep passes through
are wrapped, so that each reports the failpoints it passes (`tests/fault/failpoints.py`). In the same way the suite breaks
a guarantee on purpose (`MUTATIONS`), and shortens the longest waits from minutes to seconds (`_shorten_waits`).
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery.worker.request import Request
from sqlalchemy import delete

import tasks.events.inbox
import tasks.outbox.task
import tasks.printing.claim
import tasks.printing.handler
import tasks.printing.state_machine
import tasks.unit_of_work
import workers.app
from schemas.models import InboxEntry
from tasks.printing.printers.spool import SpoolPrinter
from tasks.unit_of_work import UnitOfWork
from tests.fault.failpoints import Failpoints, isolate
from workers.cli import main
from workers.publisher import BrokerPublisher

FAILPOINTS = {
    "before the transaction": ("returns", "printing", "housekeeping"),
    "inside the transaction": ("returns", "printing", "housekeeping"),
    "after the commit": ("returns", "printing", "housekeeping"),
    "before the reply": ("returns", "printing", "housekeeping"),
    "after the reply": ("returns", "printing", "housekeeping"),
    "before the ack": ("returns", "printing"),
    "before the slip": ("printing",),
    "after the slip": ("printing",),
}
"""The failpoints, and the roles that reach them. The reply of a print worker is its notice to the station."""

_ALL_MODULES = sorted({module for modules in workers.app.TASK_MODULES.values() for module in modules})
for module in (*_ALL_MODULES, "celery.apps.worker", "celery.concurrency.prefork", "celery.concurrency.thread",
               "celery.beat", "kombu.transport.redis", "kombu.transport.pyamqp", "psycopg", "workers.commands.worker",
               "workers.runtime.batching", "celery.fixups.django"):  # fmt: skip
    importlib.import_module(module)  # once, in the process that all workers are forked from


@dataclass(frozen=True)
class Start:
    """The arguments of a worker process."""

    role: str
    options: Sequence[str]
    environment: dict[str, str]
    log: Path
    failpoints: Path
    short_waits: bool
    mutation: str | None = None


def run(start: Start) -> None:
    """Run the worker in this forked process."""
    isolate(start.log, start.environment)
    _wrap(Failpoints(start.failpoints), start.role)
    if start.short_waits:
        _shorten_waits()
    if start.mutation is not None:
        MUTATIONS[start.mutation]()
    sys.argv = ["bookdrop", "worker", start.role, *start.options]
    main(sys.argv[1:])


def _wrap(failpoints: Failpoints, role: str) -> None:
    unit: Any = UnitOfWork
    unit.__enter__ = failpoints.wrap(role, unit.__enter__, "before the transaction", None)
    unit.__exit__ = failpoints.wrap(role, unit.__exit__, "inside the transaction", "after the commit")
    publisher: Any = BrokerPublisher
    publish = publisher.publish_outbox

    def publish_outbox(self: Any, entries: Any) -> Any:
        if entries:
            failpoints.reach(role, "before the reply")
        sent = publish(self, entries)
        if entries:
            failpoints.reach(role, "after the reply")
        return sent

    publisher.publish_outbox = publish_outbox
    request: Any = Request
    request.acknowledge = failpoints.wrap(role, request.acknowledge, "before the ack", None)
    spool: Any = SpoolPrinter
    spool.send = failpoints.wrap(role, spool.send, "before the slip", "after the slip")


def _shorten_waits() -> None:
    tasks.unit_of_work.SWEEP_GRACE = timedelta(seconds=2)
    tasks.printing.claim.LEASE = timedelta(seconds=4)
    tasks.printing.state_machine.REDISPATCH_AFTER = timedelta(seconds=4)  # type: ignore[misc]
    application: Any = workers.app
    options = application.broker_options

    def shorter(url: Any, redis_visibility_timeout_seconds: int) -> dict[str, Any]:
        found: dict[str, Any] = options(url, redis_visibility_timeout_seconds)
        if "visibility_timeout" in found:
            found |= {"visibility_timeout": 4, "unacked_restore_interval": 1}
        return found

    application.broker_options = shorter


def _skip_deduplication() -> None:
    """Treat every event as new, and delete its inbox row, whose key would prevent the second insert."""

    def find_none(session: Any, event_ids: Any) -> dict[Any, Any]:
        session.execute(delete(InboxEntry).where(InboxEntry.event_id.in_(list(event_ids))))
        return {}

    tasks.events.inbox.stored_replies = find_none


def _ack_before_commit() -> None:
    """Acknowledge messages when they are received, as Celery does by default."""
    settings = workers.app.celery_settings

    def early() -> dict[str, Any]:
        return settings() | {"task_acks_late": False, "task_reject_on_worker_lost": False}

    workers.app.app.add_defaults(early)


def _disable_outbox_sweep() -> None:
    """Leave committed messages in the outbox that were not published."""
    task: Any = tasks.outbox.task
    task.sweep = lambda _context: 0


MUTATIONS: dict[str, Callable[[], None]] = {
    "inbox": _skip_deduplication,
    "ack": _ack_before_commit,
    "sweep": _disable_outbox_sweep,
}
"""Guarantees broken on purpose, to verify that the suite detects violations."""
