# SPDX-License-Identifier: Apache-2.0
"""Delivery of webhooks in the process of a housekeeping worker: a thread that queues, and one for each endpoint.

These threads are not those of the worker's pool. So an endpoint that does not respond delays neither a sweep nor another
endpoint.
"""

import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import structlog
from celery import bootsteps
from sqlalchemy.orm import sessionmaker

from schemas.database import open_engine
from tasks import context as task_context
from tasks.context import Context
from tasks.unit_of_work import PublishedRows
from tasks.webhooks.delivery import deliver, due_endpoints
from tasks.webhooks.maintenance import maintain
from tasks.webhooks.queueing import queue_deliveries
from workers.settings import WorkerSettings

log = structlog.get_logger()

MAINTENANCE_INTERVAL: Final = timedelta(minutes=1)


class WebhookSender:
    """Queues and delivers webhooks in threads of this process until `stop`."""

    def __init__(self, context: Context, interval: timedelta) -> None:
        self._context = context
        self._interval = interval.total_seconds()
        self._sender = uuid4()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._deliveries: dict[int, threading.Thread] = {}
        self._maintained_at: float | None = None

    def start(self) -> None:
        """Start the thread that queues."""
        self._thread.start()

    def stop(self) -> None:
        """End after the messages that are being sent, at most their timeout. What is left stays in the database."""
        self._stop.set()
        ends = time.monotonic() + self._context.webhooks.timeout.total_seconds() + 5
        for thread in (self._thread, *self._deliveries.values()):
            thread.join(max(0.0, ends - time.monotonic()))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._tick()
            except Exception as error:  # noqa: BLE001 - the next run tries again; nothing is lost
                log.warning("webhooks_not_processed", error=type(error).__name__)
            self._stop.wait(self._interval)

    def _tick(self) -> None:
        queue_deliveries(self._context)
        for endpoint in due_endpoints(self._context):
            running = self._deliveries.get(endpoint)
            if running is None or not running.is_alive():
                thread = threading.Thread(
                    target=self._deliver, args=(endpoint,), name=f"webhook-{endpoint}", daemon=True
                )
                self._deliveries[endpoint] = thread
                thread.start()
        now = time.monotonic()
        if self._maintained_at is None or now - self._maintained_at > MAINTENANCE_INTERVAL.total_seconds():
            self._maintained_at = now
            deleted = maintain(self._context)
            if deleted:
                log.info("webhook_deliveries_deleted", count=deleted)

    def _deliver(self, endpoint: int) -> None:
        try:
            deliver(self._context, endpoint, self._sender, stopped=self._stop.is_set)
        except Exception as error:  # noqa: BLE001 - the lease ends, and a later run sends again
            log.warning("webhooks_not_processed", webhook=endpoint, error=type(error).__name__)


class WebhookDelivery(bootsteps.StartStopStep):
    """A bootstep of the worker: runs `WebhookSender` in a housekeeping worker, with separate database connections."""

    # After the scheduler, whose process is forked from this one.
    requires = ("celery.worker.components:Beat",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._engine: Any = None
        self._running: WebhookSender | None = None

    def include_if(self, parent: Any) -> bool:
        """Return True for the role `housekeeping`."""
        return WorkerSettings.load().role == "housekeeping"

    def start(self, parent: Any) -> None:
        """Start the threads."""
        settings = WorkerSettings.load()
        self._engine = open_engine(settings.database_url, pool_size=2, name="bookdrop-webhooks")
        context = replace(
            task_context.current(),
            sessions=sessionmaker(self._engine, expire_on_commit=False),
            published_rows=PublishedRows(),
        )
        self._running = WebhookSender(context, timedelta(seconds=settings.sweep_interval_seconds))
        self._running.start()

    def stop(self, parent: Any) -> None:
        """End the threads, and close the connections."""
        if self._running is not None:
            self._running.stop()
            self._engine.dispose()
            self._running = None
