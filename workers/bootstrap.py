# SPDX-License-Identifier: Apache-2.0
"""Create the context of a worker process, with its own connections: once per process, after any fork."""

import os
import socket
from datetime import UTC, datetime, timedelta

from kombu import Connection
from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker

from schemas.database import open_engine
from tasks import context
from tasks.privacy.policy import RetentionPolicy
from tasks.quarantine.limits import QuarantineLimits
from tasks.requests.export import CLOCK_TOLERANCE
from tasks.unit_of_work import PublishedRows
from tasks.webhooks.policy import WebhookPolicy
from workers.broker_options import RESPONSE_TIMEOUT_SECONDS, broker_options, socket_timeouts
from workers.dead_letters import open_dead_letters
from workers.metrics.flusher import MetricsFlusher
from workers.publisher import BrokerPublisher
from workers.settings import WorkerSettings
from workers.task_events import TaskEventPublisher


def utc_now() -> datetime:
    """Return the time of the worker's clock, aware UTC."""
    return datetime.now(UTC)


def connect(settings: WorkerSettings, *, confirm_each: bool = True) -> Connection:
    """Return a connection for publishing, not opened yet. It fails at once when the broker is unavailable.

    `confirm_each`: on RabbitMQ each `publish` waits for its publisher confirm; otherwise the caller waits for them.
    """
    broker = settings.broker
    options = {**broker_options(broker, settings.redis_visibility_timeout_seconds), "max_retries": 0}
    if not broker.is_redis:
        options |= {**socket_timeouts(RESPONSE_TIMEOUT_SECONDS), "confirm_publish": confirm_each}
    return Connection(broker.url, ssl=broker.ssl or False, transport_options=options, heartbeat=0)


def connect_for_monitoring(settings: WorkerSettings) -> Connection:
    """Return a connection that receives heartbeats and counts messages, not opened yet.

    On Redis it restores no unacknowledged message of a worker: its user may read and publish none.
    """
    connection = connect(settings)
    if settings.broker.is_redis:
        connection.transport_options = {**(connection.transport_options or {}), "ack_emulation": False}
    return connection


def make(settings: WorkerSettings, engine: Engine | None = None) -> context.Context:
    """Create the context of this process."""
    sessions = sessionmaker(engine or open_engine(settings.database_url), expire_on_commit=False)
    published_rows = PublishedRows()
    worker = f"{socket.gethostname()}:{os.getpid()}"
    return context.Context(
        sessions=sessions,
        now=utc_now,
        publisher=BrokerPublisher(lambda: connect(settings, confirm_each=False), sessions, published_rows, worker),
        published_rows=published_rows,
        worker=worker,
        metrics=MetricsFlusher(sessions).recorder,
        undo_window=settings.undo_window,
        patron_card_pattern=settings.patron_card_pattern,
        own_branch_only=settings.undo_and_override_own_branch_only,
        slip_expiry=timedelta(hours=settings.slip_expiry_hours),
        dead_letters=lambda: open_dead_letters(lambda: connect(settings)),
        retention=retention_policy(settings),
        quarantine_limits=QuarantineLimits(
            settings.quarantine_max_messages, settings.quarantine_max_mebibytes * 1024 * 1024
        ),
        emit_task_event=TaskEventPublisher(lambda: connect(settings)),
        webhooks=webhook_policy(settings),
    )


def webhook_policy(settings: WorkerSettings) -> WebhookPolicy:
    """Return the durations of the delivery of webhooks."""
    time_limit = timedelta(seconds=settings.redis_visibility_timeout_seconds / 2)
    return WebhookPolicy(
        timeout=timedelta(seconds=settings.webhook_timeout_seconds),
        give_up_after=timedelta(days=settings.webhook_give_up_days),
        retention=timedelta(days=settings.webhook_retention_days),
        # A transaction takes the number of its line at its end at the latest, and another that took a lower one before
        # that ends within the time limit as well.
        settled_after=2 * time_limit + CLOCK_TOLERANCE,
    )


def retention_policy(settings: WorkerSettings) -> RetentionPolicy:
    """Return how long content that may name a patron is kept."""
    return RetentionPolicy(
        unknown_barcodes=timedelta(hours=settings.unknown_barcode_retention_hours),
        replies=timedelta(days=settings.reply_retention_days),
        notes=timedelta(days=settings.note_retention_days),
        quarantine=timedelta(days=settings.quarantine_retention_days),
        key=None if settings.privacy_key is None else settings.privacy_key.get_secret_value(),
    )
