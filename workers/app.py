# SPDX-License-Identifier: Apache-2.0
"""The Celery application. It reads its settings at first use, not at import.

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
from workers.metrics import flusher
from workers.metrics.heartbeats import role_of
from workers.publisher import BrokerPublisher
from workers.runtime.compression import refuse_compression
from workers.runtime.queues import DeadLetters, EventsExchange, queue_declaration
from workers.runtime.timer_cleanup import TimerCleanup
from workers.settings import WorkerSettings
from workers.supervision.heartbeat import Heartbeat, heartbeat_file
from workers.webhooks import WebhookDelivery

TASK_MODULES = {
    "returns": ("tasks.returns.task", "tasks.circulation.task", "tasks.printing.station_task"),
    "printing": ("tasks.printing.task",),
    "housekeeping": ("tasks.outbox.task", "tasks.printing.task", "tasks.privacy.task", "tasks.quarantine.task"),
}
"""The modules whose tasks a worker of a role registers. It registers no others."""

LONGEST_PURGE_INTERVAL = timedelta(minutes=1)
SWEEPS_PER_PURGE = 12
"""Housekeeping deletes patron links that are no longer needed once in so many sweeps, and at least each minute."""


def celery_settings() -> dict[str, Any]:
    """Return Celery's configuration, made from `WorkerSettings`."""
    settings = WorkerSettings.load()
    broker = settings.broker
    roles = [settings.role] if settings.role in TASK_MODULES else list(TASK_MODULES)
    sweep = timedelta(seconds=settings.sweep_interval_seconds)
    # The publisher confirm has a timeout: a RabbitMQ that vanished without notice would stop all sweeps.
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
        # RabbitMQ: both sides detect a connection that was lost without notice after two to three heartbeats. Until the
        # server has detected it, the worker's exclusive queue for remote control is locked, and the worker cannot start again.
        "broker_heartbeat": 30,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "broker_pool_acquire_timeout": 5,
        "imports": sorted({module for role in roles for module in TASK_MODULES[role]}),
        "task_queues": [
            queue_declaration(queue)
            for queue in (topology.RETURNS_QUEUE, topology.HOUSEKEEPING_QUEUE, topology.PRINT_ACTIONS_QUEUE)
        ],
        "task_default_queue": topology.HOUSEKEEPING_QUEUE,
        "task_default_exchange": "",
        "task_routes": {
            **{task: {"queue": topology.RETURNS_QUEUE} for task in topology.STATION_TASKS},
        },
        # A message is acknowledged when its work is committed, and redelivered when its process is lost.
        "task_acks_late": True,
        # Not `task_retry_on_worker_lost`: it publishes a new message, so that the broker counts no deliveries, and a message
        # that kills its process does so for ever. A rejected message is counted, and becomes a dead letter at the limit.
        "task_reject_on_worker_lost": True,
        # Below the visibility timeout, so that the broker does not redeliver a task that still runs.
        # No soft limit: raised during a statement, it can leave a transaction open, with all its locks. The end of a
        # process releases everything, and a station or a sweep sends the work again.
        "task_time_limit": settings.redis_visibility_timeout_seconds // 2,
        "task_ignore_result": True,
        "result_backend": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": True,
        "worker_consumer": "workers.runtime.consumer:Consumer",
        # Events that wait while all processes are busy run as one job (workers/runtime/batching.py). The prefetch count
        # allows a full batch to be ready when a process becomes idle, while the broker delivers the next.
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
                "schedule": min(SWEEPS_PER_PURGE * sweep, LONGEST_PURGE_INTERVAL),
                "options": sweeps,
            },
        },
    }


class Application(Celery):
    """A Celery application whose first use may fail, for example for an invalid setting, and succeed later.

    Celery marks itself as configured and finalized before it reads the configuration. If that fails, the application
    keeps Celery's defaults and a registry with one task, for ever. Here invalid settings raise before either mark, and
    a failure in between removes the second one.
    """

    finalized: bool
    _tasks: dict[str, Any]

    @property
    def Worker(self) -> Any:  # noqa: N802 - Celery's name
        """The class of this application's workers."""
        return self.subclass_with_self("workers.runtime.handover:Worker")  # type: ignore[arg-type]  # its stubs omit names

    def on_configure(self) -> None:  # type: ignore[override]  # a signal in its stubs; Celery calls a method as well
        """Validate the settings, and refuse compressed messages in this process. Raises `ConfigurationError`."""
        WorkerSettings.load()
        refuse_compression()

    def finalize(self, auto: bool = False) -> None:
        """Read the configuration, then fill the registry of tasks."""
        if not self.finalized:
            _ = self.conf.task_acks_late
        try:
            super().finalize(auto)
        except BaseException:
            self._tasks.clear()
            self.finalized = False
            raise


app = Application(
    "bookdrop",
    amqp="workers.runtime.queues:DeclaredAMQP",
    control="workers.runtime.remote_control:Control",
    events="workers.runtime.event_dispatcher:Events",
)
app.add_defaults(celery_settings)
app.steps["worker"].add(Heartbeat)
app.steps["worker"].add(TimerCleanup)
app.steps["worker"].add(WebhookDelivery)
app.steps["consumer"].add(DeadLetters)
app.steps["consumer"].add(EventsExchange)

_THREAD_POOLS = frozenset({"threads", "thread", "gevent", "eventlet"})

_engines: list[Engine] = []


@signals.setup_logging.connect
def _setup_logging(**_: Any) -> None:
    settings = WorkerSettings.load()
    logging.configure(settings.log_level, settings.log_format)


@signals.celeryd_init.connect
def _name_heartbeat(sender: str, **_: Any) -> None:
    settings = WorkerSettings.load()
    Heartbeat.path = heartbeat_file(settings, sender if role_of(sender) == settings.role else settings.role)


@signals.worker_init.connect
def _prepare_parent(sender: Any, **_: Any) -> None:
    """Create the context of the parent process, for pools that do not fork; switch on batching."""
    _create_context(database_connections(sender.pool_cls, sender.concurrency))
    if WorkerSettings.load().batching:
        for name in BATCH_HANDLERS:
            app.tasks[name].Strategy = "workers.runtime.batching:batch_strategy"


@signals.worker_process_init.connect
def _prepare_child(**_: Any) -> None:
    """Discard the parent's connections without closing them, and create the child's own."""
    for engine in _engines:
        engine.dispose(close=False)
    _create_context(database_connections("prefork", 1))


def database_connections(pool: object, concurrency: int) -> int:
    """Return the number of database connections of a process: one for each working thread, one for its flushers.

    `pool`: the name of Celery's pool, or its class. Only in a pool of threads does a process run several tasks at once.
    """
    module = pool if isinstance(pool, str) else getattr(pool, "__module__", "")
    return 1 + (concurrency if module.rpartition(".")[2] in _THREAD_POOLS else 1)


def _create_context(connections: int) -> None:
    settings = WorkerSettings.load()
    engine = open_engine(
        settings.database_url, pool_size=connections, name=f"bookdrop-{settings.role}",
        overwrite_deleted=settings.role == "housekeeping",
    )  # fmt: skip
    _engines[:] = [engine]
    task_context.use(bootstrap.make(settings, engine))


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def _close(**_: Any) -> None:
    """Write the last metrics, and delete published outbox rows. The sweep would publish remaining ones again."""
    try:
        context = task_context.current()
    except LookupError:
        return
    flusher.flush(context.sessions, context.metrics)
    if isinstance(context.publisher, BrokerPublisher):
        context.publisher.close()


@signals.task_prerun.connect
def _bind_log(task_id: str, task: Any, **_: Any) -> None:
    structlog.contextvars.bind_contextvars(task=task.name, task_id=task_id)


@signals.task_postrun.connect
def _clear_log(**_: Any) -> None:
    structlog.contextvars.clear_contextvars()
