# SPDX-License-Identifier: Apache-2.0
"""A worker that can be made to die at an exact point: the program's own `bookdrop worker`, wrapped from outside.

Nothing in the program knows of this. Before the command runs, functions that every event, slip and sweep goes through
are wrapped, so that each calls out where it is (`tests/fault/arming.py`). The same way the program can be broken on
purpose (`SABOTAGE`), and its longest waits be shortened (`hurry`): what would take a minute and a half then takes seconds.
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
from tests.fault.arming import Arms, become
from workers.cli import main
from workers.publisher import BrokerPublisher

POINTS = {
    "before the transaction": ("returns", "printing", "housekeeping"),
    "inside the transaction": ("returns", "printing", "housekeeping"),
    "after the commit": ("returns", "printing", "housekeeping"),
    "before the reply": ("returns", "printing", "housekeeping"),
    "after the reply": ("returns", "printing", "housekeeping"),
    "before the ack": ("returns", "printing"),
    "before the slip": ("printing",),
    "after the slip": ("printing",),
}
"""Where a worker can die, and which roles come there. The reply of a print worker is its word to the station."""

_ALL_MODULES = sorted({module for modules in workers.app.TASK_MODULES.values() for module in modules})
for module in (*_ALL_MODULES, "celery.apps.worker", "celery.concurrency.prefork", "celery.concurrency.thread",
               "celery.beat", "kombu.transport.redis", "kombu.transport.pyamqp", "psycopg", "workers.commands.worker",
               "workers.runtime.batching", "celery.fixups.django"):  # fmt: skip
    importlib.import_module(module)  # once, in the process that all workers are forked from


@dataclass(frozen=True)
class Start:
    """What a worker process is started with."""

    role: str
    options: Sequence[str]
    environment: dict[str, str]
    log: Path
    arms: Path
    hurry: bool
    sabotage: str | None = None


def run(start: Start) -> None:
    """Be the worker, in this forked process."""
    become(start.log, start.environment)
    _wrap(Arms(start.arms), start.role)
    if start.hurry:
        _hurry()
    if start.sabotage is not None:
        SABOTAGE[start.sabotage]()
    sys.argv = ["bookdrop", "worker", start.role, *start.options]
    main(sys.argv[1:])


def _wrap(arms: Arms, role: str) -> None:
    unit: Any = UnitOfWork
    unit.__enter__ = arms.around(role, unit.__enter__, "before the transaction", None)
    unit.__exit__ = arms.around(role, unit.__exit__, "inside the transaction", "after the commit")
    publisher: Any = BrokerPublisher
    publish = publisher.publish_outbox

    def publish_outbox(self: Any, entries: Any) -> Any:
        if entries:
            arms.visit(role, "before the reply")
        sent = publish(self, entries)
        if entries:
            arms.visit(role, "after the reply")
        return sent

    publisher.publish_outbox = publish_outbox
    request: Any = Request
    request.acknowledge = arms.around(role, request.acknowledge, "before the ack", None)
    spool: Any = SpoolPrinter
    spool.send = arms.around(role, spool.send, "before the slip", "after the slip")


def _hurry() -> None:
    tasks.unit_of_work.SWEEP_GRACE = timedelta(seconds=2)
    tasks.printing.claim.LEASE = timedelta(seconds=4)
    tasks.printing.state_machine.REDISPATCH_AFTER = timedelta(seconds=4)  # type: ignore[misc]
    application: Any = workers.app
    options = application.broker_options

    def sooner(url: Any, redis_visibility_timeout_seconds: int) -> dict[str, Any]:
        found: dict[str, Any] = options(url, redis_visibility_timeout_seconds)
        if "visibility_timeout" in found:
            found |= {"visibility_timeout": 4, "unacked_restore_interval": 1}
        return found

    application.broker_options = sooner


def _skip_the_inbox_check() -> None:
    """No event was ever answered before, and the table's key does not save us either."""

    def nothing_known(session: Any, event_ids: Any) -> dict[Any, Any]:
        session.execute(delete(InboxEntry).where(InboxEntry.event_id.in_(list(event_ids))))
        return {}

    tasks.events.inbox.stored_replies = nothing_known


def _ack_before_commit() -> None:
    """Messages are acknowledged when they are taken, as Celery does by default."""
    settings = workers.app.celery_settings

    def early() -> dict[str, Any]:
        return settings() | {"task_acks_late": False, "task_reject_on_worker_lost": False}

    workers.app.app.add_defaults(early)


def _drop_the_sweep() -> None:
    """What was committed and not published stays where it is."""
    task: Any = tasks.outbox.task
    task.sweep = lambda _here: 0


SABOTAGE: dict[str, Callable[[], None]] = {
    "inbox": _skip_the_inbox_check,
    "ack": _ack_before_commit,
    "sweep": _drop_the_sweep,
}
"""Promises broken on purpose, to see that the suite notices."""
