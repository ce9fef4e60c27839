# SPDX-License-Identifier: Apache-2.0
"""Giving promised messages to the broker, on a kept connection, and letting go of their outbox rows."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from kombu import Connection, Producer, Queue
from sqlalchemy import delete
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from uuid6 import uuid7

from schemas.models import OutboxEntry
from schemas.publisher_confirms import PublisherConfirms, confirms_of
from schemas.task_message import task_body, task_headers
from schemas.topology import queue_arguments
from tasks.ports import PendingMessage
from tasks.unit_of_work import PublishedRows
from workers.broker_options import RESPONSE_TIMEOUT_SECONDS

log = structlog.get_logger()


FLUSH_SECONDS = 1.0
"""After how long settled rows go in a transaction of their own, when no other takes them along."""


class BrokerPublisher:
    """A `tasks.context.Publisher` over kombu. One connection per thread: kombu's channels are not thread-safe."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        sessions: sessionmaker[Session],
        published_rows: PublishedRows,
        origin: str,
    ) -> None:
        self._connect = connect
        self._sessions = sessions
        self._published_rows = published_rows
        self._origin = origin
        self._local = threading.local()
        self._closing = threading.Event()
        self._starting = threading.Lock()
        self._flusher: threading.Thread | None = None

    def publish_outbox(self, entries: Sequence[PendingMessage]) -> int:
        """Publish `entries` in order and note the rows of those the broker has; return how many it has."""
        self._start_flusher()
        sent: list[PendingMessage] = []
        try:
            self._publish_all(entries, sent)
        except Exception as error:  # noqa: BLE001 - whatever the transport raises: the sweep takes over
            self._let_go()
            log.warning("publish_failed", error=type(error).__name__, left=len(entries) - len(sent))
        self._published_rows.add(entry.outbox_id for entry in sent if entry.outbox_id is not None)
        return len(sent)

    def _publish_all(self, entries: Sequence[PendingMessage], sent: list[PendingMessage]) -> None:
        """Publish in order, and note in `sent` what the broker has; all of it in one round trip."""
        if not entries:
            return
        producer, declared = self._producer()
        for queue in {entry.queue for entry in entries} - declared:
            self._declare(queue)
        receipts: PublisherConfirms[PendingMessage] | None = self._local.receipts
        if receipts is None:
            with producer.batch():  # type: ignore[attr-defined]  # missing in its stubs
                for entry in entries:
                    self._publish(producer, entry)
            # Not before: of a batch that breaks nobody knows how much is there; sent once more it does no harm.
            sent += entries
            return
        try:
            for entry in entries:
                self._publish(producer, entry)
                receipts.expect(entry.queue, entry)
            receipts.wait(RESPONSE_TIMEOUT_SECONDS)
        finally:
            sent += receipts.collect()

    def flush(self) -> None:
        """Delete the settled rows now."""
        ids = self._published_rows.drain()
        if not ids:
            return
        try:
            with self._sessions.begin() as session:
                session.execute(delete(OutboxEntry).where(OutboxEntry.id.in_(ids)))
        except DBAPIError as error:
            self._published_rows.add(ids)
            log.warning("outbox_rows_left", error=type(error).__name__, left=len(ids))

    def close(self) -> None:
        """Flush, and drop this thread's connection. The publisher is not used after this."""
        self._closing.set()
        self.flush()
        self._let_go()

    def _start_flusher(self) -> None:
        """Not before it is needed: a process that only forks others has no threads."""
        with self._starting:
            if self._flusher is None:
                self._flusher = threading.Thread(target=self._flush_now_and_then, name="bookdrop-outbox", daemon=True)
                self._flusher.start()

    def _flush_now_and_then(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            self.flush()

    def _let_go(self) -> None:
        connection: Connection | None = getattr(self._local, "connection", None)
        self._local.__dict__.clear()
        if connection is not None:
            connection.release()

    def _declare(self, queue: str) -> None:
        """Declared by whoever publishes: on Redis that is what lets an unread reply queue expire."""
        arguments = queue_arguments(queue)
        declared = Queue(queue, exchange="", routing_key=queue, durable=True, queue_arguments=arguments)
        declared.bind(self._local.channel).queue_declare()
        self._local.declared.add(queue)

    def _publish(self, producer: Producer, entry: PendingMessage) -> None:
        correlation_id = str(entry.event_id) if entry.event_id is not None else None
        if entry.task is None:
            self._send(producer, entry.queue, entry.body, {}, correlation_id)
        else:
            task_id = str(uuid7())
            headers = task_headers(entry.task, task_id, origin=self._origin)
            headers["argsrepr"] = f"({entry.body},)"
            self._send(producer, entry.queue, task_body(entry.body), headers, task_id)

    @staticmethod
    def _send(producer: Producer, queue: str, body: str, headers: dict[str, Any], correlation_id: str | None) -> None:
        producer.publish(
            body,
            exchange="",
            routing_key=queue,
            headers=headers,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            correlation_id=correlation_id,
            mandatory=True,  # RabbitMQ: a queue that is gone is an error, and declared anew with the next connection
            retry=False,
        )

    def _producer(self) -> tuple[Producer, set[str]]:
        if not hasattr(self._local, "producer"):
            connection = self._connect()
            self._local.connection = connection
            self._local.channel = connection.default_channel
            self._local.producer = Producer(self._local.channel)
            self._local.receipts = confirms_of(self._local.channel)
            self._local.declared = set()
        return self._local.producer, self._local.declared
