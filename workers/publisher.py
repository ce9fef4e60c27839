# SPDX-License-Identifier: Apache-2.0
"""Publish committed messages over a kept connection, and delete their outbox rows."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from kombu import Connection, Producer, Queue
from sqlalchemy import delete
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from uuid6 import uuid7

from schemas.models import OutboxEntry
from schemas.publisher_confirms import PublisherConfirms, enable_confirms
from schemas.task_message import task_body, task_headers
from schemas.topology import REPLY_QUEUE_PREFIX, queue_arguments
from tasks.ports import PendingMessage
from tasks.unit_of_work import PublishedRows
from workers.broker_options import RESPONSE_TIMEOUT_SECONDS

log = structlog.get_logger()

_EXISTS_DIFFERENTLY: Final = frozenset({405, 406})
"""RabbitMQ's reply codes of the declaration of a queue that is exclusive, or that exists with other arguments."""

MAX_REPLIES = 10_000
"""Redis: replies that wait in a station's reply queue. Beyond, the oldest are removed: a station sends its event again."""
TRIM_AFTER = 100
"""Replies to one queue after which a worker process trims it, so that a scan costs no further round trip."""

FLUSH_SECONDS = 1.0
"""Interval after which published rows are deleted in a separate transaction, if no other has deleted them, in seconds."""


class BrokerPublisher:
    """A `tasks.ports.Publisher` over kombu. One connection per thread, because kombu's channels are not thread-safe."""

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
        """Publish `entries` in order, and record the rows of those that the broker has confirmed; return how many."""
        self._start_flusher()
        sent: list[PendingMessage] = []
        try:
            self._publish_all(entries, sent)
        except Exception as error:  # noqa: BLE001 - any error of the transport: the sweep publishes the rest
            self._disconnect()
            log.warning("publish_failed", error=type(error).__name__, left=len(entries) - len(sent))
        self._published_rows.add(entry.outbox_id for entry in sent if entry.outbox_id is not None)
        return len(sent)

    def _publish_all(self, entries: Sequence[PendingMessage], sent: list[PendingMessage]) -> None:
        """Publish in order, in one round trip, and add to `sent` the messages that the broker has confirmed."""
        if not entries:
            return
        producer, declared = self._producer()
        for queue in {entry.queue for entry in entries} - declared:
            self._declare(queue)
        confirms: PublisherConfirms[PendingMessage] | None = self._local.confirms
        if confirms is None:
            with producer.batch():  # type: ignore[attr-defined]  # missing in its stubs
                for entry in entries:
                    self._publish(producer, entry)
            self._trim_reply_queues(entries)
            # Not earlier: of a batch that fails, an unknown part has arrived. The sweep publishes all of it again.
            sent += entries
            return
        try:
            for entry in entries:
                self._publish(producer, entry)
                confirms.track(entry.queue, entry)
            confirms.wait(RESPONSE_TIMEOUT_SECONDS)
        finally:
            sent += confirms.take_confirmed()

    def _trim_reply_queues(self, entries: Sequence[PendingMessage]) -> None:
        """Redis: remove the oldest replies beyond `MAX_REPLIES`, once for each `TRIM_AFTER` replies to a queue.

        RabbitMQ has a policy for this (`bookdrop acl rabbitmq`).
        """
        published: Counter[str] = self._local.published
        published.update(entry.queue for entry in entries if entry.queue.startswith(REPLY_QUEUE_PREFIX))
        for queue in [queue for queue, number in published.items() if number >= TRIM_AFTER]:
            del published[queue]
            self._local.channel.client.ltrim(queue, 0, MAX_REPLIES - 1)

    def flush(self) -> None:
        """Delete the published rows now."""
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
        """Flush, and close this thread's connection. Do not use the publisher after this."""
        self._closing.set()
        self.flush()
        self._disconnect()

    def _start_flusher(self) -> None:
        """Start the flusher with the first publish, because a process that only forks others must have no threads."""
        with self._starting:
            if self._flusher is None:
                self._flusher = threading.Thread(target=self._flush_at_intervals, name="bookdrop-outbox", daemon=True)
                self._flusher.start()

    def _flush_at_intervals(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            self.flush()

    def _disconnect(self) -> None:
        connection: Connection | None = getattr(self._local, "connection", None)
        self._local.__dict__.clear()
        if connection is not None:
            connection.release()

    def _declare(self, queue: str) -> None:
        """Declare the queue before the first publish: on Redis, that lets an unread reply queue expire.

        RabbitMQ refuses the declaration of a queue that exists with other arguments, or exclusively, and closes the channel.
        A station may have declared its own reply queue so. The channel is a separate one, and publishing continues: the
        queue exists, and the messages to other queues do not depend on it.
        """
        arguments = queue_arguments(queue)
        declared = Queue(queue, exchange="", routing_key=queue, durable=True, queue_arguments=arguments)
        connection: Connection = self._local.connection
        if self._local.confirms is None:
            declared.bind(self._local.channel).queue_declare()
        else:
            if self._local.declaring_channel is None:
                self._local.declaring_channel = connection.channel()
            try:
                declared.bind(self._local.declaring_channel).queue_declare()
            except connection.channel_errors as error:
                if getattr(error, "code", None) not in _EXISTS_DIFFERENTLY:
                    raise
                log.warning("queue_declared_differently", queue=queue, error=type(error).__name__)
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
            mandatory=True,  # RabbitMQ: a deleted queue is an error; the next connection declares it again
            retry=False,
        )

    def _producer(self) -> tuple[Producer, set[str]]:
        if not hasattr(self._local, "producer"):
            connection = self._connect()
            self._local.connection = connection
            self._local.channel = connection.default_channel
            self._local.producer = Producer(self._local.channel)
            self._local.confirms = enable_confirms(self._local.channel)
            self._local.declaring_channel = None
            self._local.declared = set()
            self._local.published = Counter()
        return self._local.producer, self._local.declared
