# SPDX-License-Identifier: Apache-2.0
"""The Celery application. Settings are read when it is first asked for one, not at import.

Start a worker with `bookdrop worker ROLE`, or with Celery's own command:
`BOOKDROP_ROLE=returns celery -A workers.app worker -Q returns`.
"""

from datetime import timedelta
from typing import Any

import structlog
from celery import Celery, signals
from sqlalchemy import Engine

from schemas import topology
from schemas.database import open_engine
from tasks import context as task_context
from tasks.handlers import BATCH_HANDLERS
from workers import bootstrap, logging
from workers.access_control.redis import FLOWER_KEYS
from workers.broker_options import RESPONSE_TIMEOUT_SECONDS, atomic_options, broker_options
from workers.heartbeat import Heartbeat, heartbeat_file
from workers.metrics import flusher
from workers.publisher import BrokerPublisher
from workers.runtime.queues import DeadLetters, queue_declaration
from workers.runtime.timer_cleanup import TimerCleanup
from workers.settings import WorkerSettings

TASK_MODULES = {
    "returns": ("tasks.returns.task", "tasks.circulation.task", "tasks.printing.station_task"),
    "printing": ("tasks.printing.task",),
    "housekeeping": ("tasks.outbox.task", "tasks.printing.task", "tasks.privacy.task", "tasks.quarantine.task"),
}
"""The modules whose tasks a worker of a role registers. It registers no others."""

SWEEPS_PER_PURGE = 12
"""Housekeeping deletes patron links that are no longer needed once in so many sweeps: each minute by default."""


def celery_settings() -> dict[str, Any]:
    """Celery's configuration, from ours."""
    settings = WorkerSettings.load()
    broker = settings.broker
    roles = [settings.role] if settings.role in TASK_MODULES else list(TASK_MODULES)
    sweep = timedelta(seconds=settings.sweep_interval_seconds)
    # With an end to the wait for RabbitMQ's word: a connection lost in silence would end all sweeping.
    sweeps = {"queue": topology.HOUSEKEEPING_QUEUE, "expires": 60, "confirm_timeout": RESPONSE_TIMEOUT_SECONDS}
    options = broker_options(broker, settings.redis_visibility_timeout_seconds)
    if broker.is_redis and settings.redis_transport == "atomic" and settings.role != "flower":
        options |= atomic_options()
    if broker.is_redis and settings.role == "flower":
        options |= dict(zip(("unacked_key", "unacked_index_key", "unacked_mutex_key"), FLOWER_KEYS, strict=True))
    return {
        "broker_url": broker.url,
        "broker_use_ssl": broker.ssl or False,
        "broker_transport_options": options,
        # RabbitMQ: a connection that was lost without a word is noticed by both sides after two to three of these; until
        # the server has noticed, nobody else may have the worker's queue for remote control, and it cannot begin anew.
        "broker_heartbeat": 30,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "broker_pool_acquire_timeout": 5,
        "broker_native_delayed_delivery_queue_type": "quorum",
        "imports": sorted({module for role in roles for module in TASK_MODULES[role]}),
        "task_queues": [
            queue_declaration(queue)
            for queue in (topology.RETURNS_QUEUE, topology.HOUSEKEEPING_QUEUE, topology.PRINT_ACTIONS_QUEUE)
        ],
        "task_default_queue": topology.HOUSEKEEPING_QUEUE,
        "task_default_exchange": "",
        "task_routes": {
            **{task: {"queue": topology.RETURNS_QUEUE} for task in topology.STATION_TASKS},
            **{task: {"queue": topology.PRINT_ACTIONS_QUEUE} for task in topology.PRINT_ACTIONS},
        },
        # A message is acknowledged when its work is committed, and comes back when its process is lost.
        "task_acks_late": True,
        # Not `task_retry_on_worker_lost`: it publishes the message anew, so nobody counts, and a message that kills
        # its process does so for ever. Rejected, it is counted, and goes to the dead letters in the end.
        "task_reject_on_worker_lost": True,
        # Below the visibility timeout: a task that still runs is never delivered a second time.
        # No soft limit: raised amid a statement, it can leave a transaction open that nobody ends, with all its locks.
        # A process that is ended lets go of everything, and whoever wanted it asks again: a station, or a sweep.
        "task_time_limit": settings.redis_visibility_timeout_seconds // 2,
        "task_ignore_result": True,
        "result_backend": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": True,
        "worker_consumer": "workers.runtime.consumer:Consumer",
        # What gathers while all processes are busy goes to the next free one as one job (workers/runtime/batching.py).
        # A full batch lies ready when a process gets free, while the broker brings the next.
        "worker_prefetch_multiplier": 64 if settings.role == "returns" and settings.batching else 4,
        "worker_enable_remote_control": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "timezone": "UTC",
        "beat_scheduler": "workers.runtime.beat:Scheduler",
        "beat_schedule": {
            "sweep-outbox": {
                "task": topology.SWEEP_OUTBOX,
                "schedule": sweep,
                "options": sweeps,
            },
            "sweep-prints": {
                "task": topology.SWEEP_PRINTS,
                "schedule": sweep,
                "options": sweeps,
            },
            "sweep-quarantine": {
                "task": topology.SWEEP_QUARANTINE,
                "schedule": 3 * sweep,
                "options": sweeps,
            },
            "purge-links": {
                "task": topology.PURGE_LINKS,
                "schedule": SWEEPS_PER_PURGE * sweep,
                "options": sweeps,
            },
        },
    }


app = Celery("bookdrop", amqp="workers.runtime.queues:DeclaredAMQP", events="workers.runtime.event_dispatcher:Events")
app.add_defaults(celery_settings)
app.steps["worker"].add(Heartbeat)
app.steps["worker"].add(TimerCleanup)
app.steps["consumer"].add(DeadLetters)

_POOLS_OF_THREADS = frozenset({"threads", "thread", "gevent", "eventlet"})

_engines: list[Engine] = []


@signals.setup_logging.connect
def _setup_logging(**_: Any) -> None:
    settings = WorkerSettings.load()
    logging.configure(settings.log_level, settings.log_format)


@signals.celeryd_init.connect
def _name_heartbeat(**_: Any) -> None:
    settings = WorkerSettings.load()
    Heartbeat.path = heartbeat_file(settings, settings.role)


@signals.worker_init.connect
def _prepare(sender: Any, **_: Any) -> None:
    """Make the context of the parent process, for pools that do not fork; let events gather while it is busy."""
    _use_own_context(connections_of(sender.pool_cls, sender.concurrency))
    if WorkerSettings.load().batching:
        for name in BATCH_HANDLERS:
            app.tasks[name].Strategy = "workers.runtime.batching:gather"


@signals.worker_process_init.connect
def _prepare_child(**_: Any) -> None:
    """Forget the parent's connections without closing them, and make the child's own."""
    for engine in _engines:
        engine.dispose(close=False)
    _use_own_context(connections_of("prefork", 1))


def connections_of(pool: object, concurrency: int) -> int:
    """How many database connections a process keeps: one for each thread that works, one for what it tidies up.

    `pool`: the name of Celery's pool, or its class. Only a pool of threads has more than one at work in a process.
    """
    module = pool if isinstance(pool, str) else getattr(pool, "__module__", "")
    return 1 + (concurrency if module.rpartition(".")[2] in _POOLS_OF_THREADS else 1)


def _use_own_context(connections: int) -> None:
    settings = WorkerSettings.load()
    engine = open_engine(settings.database_url, pool_size=connections, name=f"bookdrop-{settings.role}")
    _engines[:] = [engine]
    task_context.use(bootstrap.make(settings, engine))


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def _close(**_: Any) -> None:
    """Write the last notes; let the outbox rows go that the broker has (the sweep publishes once more what is left)."""
    try:
        here = task_context.current()
    except LookupError:
        return
    flusher.flush(here.sessions, here.metrics)
    if isinstance(here.publisher, BrokerPublisher):
        here.publisher.close()


@signals.task_prerun.connect
def _bind_log(task_id: str, task: Any, **_: Any) -> None:
    structlog.contextvars.bind_contextvars(task=task.name, task_id=task_id)


@signals.task_postrun.connect
def _clear_log(**_: Any) -> None:
    structlog.contextvars.clear_contextvars()
