# SPDX-License-Identifier: Apache-2.0
"""A station's two queues: publish events to `returns`, consume replies from the station's own reply queue."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kombu import Connection, Consumer, Message, Producer, Queue

from schemas.broker_url import Broker, read_broker_url
from schemas.events_exchange import declare_events_exchange
from schemas.publisher_confirms import PublisherConfirms, enable_confirms
from schemas.station_status import HEADER
from schemas.task_message import task_body, task_headers
from schemas.topology import ANONYMOUS_EXCHANGE, EVENTS_EXCHANGE, RETURNS_QUEUE, queue_arguments, reply_queue

_PREFETCH = 50
"""Also the largest number of replies that are handled together."""
_TIMEOUT_SECONDS = 5
_HEARTBEAT_SECONDS = 10
"""RabbitMQ: after twice this time without a frame the consumer treats its connection as lost."""
_REFUSED = frozenset({403, 404})
"""RabbitMQ's reply codes of a publish to an exchange to which the user may not write, or which is not declared."""
_GATHER_SECONDS = 0.002
"""When no further reply comes within this time, the gathered ones are handled."""


def connect(url: str, *, heartbeat: int = 0) -> Connection:
    """A connection that fails at once when the broker is unreachable; the journal holds the events meanwhile.

    Raises `ValueError` when `url` is not a broker's.
    """
    broker = read_broker_url(url)
    return Connection(
        broker.url,
        ssl=broker.ssl or False,
        transport_options=_options(broker),
        connect_timeout=3,
        heartbeat=heartbeat,
    )


def _options(broker: Broker) -> dict[str, Any]:
    if not broker.is_redis:
        return {
            "max_retries": 0,
            "read_timeout": _TIMEOUT_SECONDS,
            "write_timeout": _TIMEOUT_SECONDS,
        }
    options: dict[str, Any] = {
        "socket_timeout": _TIMEOUT_SECONDS,
        "socket_connect_timeout": 3,
        "health_check_interval": 10,
        "max_retries": 0,
        "polling_interval": 0.25,  # duration of one BRPOP, and so the longest time that closing takes
        "priority_steps": [0],  # replies have no priorities; a station's Redis user may read this one list
        # A station stores no unacknowledged messages on Redis (`ReplyConsumer`). With the emulation kombu would sweep
        # their keys nevertheless, under a lock that a script releases, and a station's user may run no scripts.
        "ack_emulation": False,
        **broker.options,
    }
    if broker.scheme != "redis+socket":
        options["socket_keepalive"] = True
    return options


def queue_declaration(name: str) -> Queue:
    """The declaration of queue `name`, with the same arguments as at the workers."""
    return Queue(name, exchange="", routing_key=name, durable=True, queue_arguments=queue_arguments(name))


class OutgoingEvent(NamedTuple):
    """An event to publish: the task that processes it, and its signed JSON."""

    event_id: str
    task: str
    payload: str
    status: Mapping[str, Any] | None = None
    """The station's status for monitoring, sent as a header (`schemas.station_status`)."""


class EventPublisher:
    """Publishes events. Not thread-safe.

    On RabbitMQ it publishes to the exchange `bookdrop.events`. Where that is not declared or not permitted yet, because
    workers or permissions are those of an earlier release, it uses the anonymous exchange for that connection.
    """

    def __init__(self, url: str, station: str) -> None:
        self._url = url
        self._station = station
        self._is_redis = read_broker_url(url).is_redis
        self._exchange = self._own_exchange = ANONYMOUS_EXCHANGE if self._is_redis else EVENTS_EXCHANGE
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._confirms: PublisherConfirms[OutgoingEvent] | None = None

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        """Publish events in order and in one round trip; connect first when necessary.

        A failure on an existing connection is retried once on a new one. Raises whatever the transport raises; then
        any of the events may have been published.
        """
        was_connected = self._producer is not None
        try:
            self._publish_all(events)
        except Exception as error:
            was_refused = self._exchange == EVENTS_EXCHANGE and getattr(error, "code", None) in _REFUSED
            self.close()
            if was_refused:
                self._exchange = ANONYMOUS_EXCHANGE
            elif not was_connected:
                raise
            # The connection may have died while idle. Publishing twice is harmless, not publishing is not.
            try:
                self._publish_all(events)
            except Exception:
                self.close()
                raise

    def connect(self) -> None:
        """Connect when necessary. Raises whatever the transport raises."""
        try:
            self._ready()
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next event opens a new one."""
        self._exchange = self._own_exchange
        connection, self._connection, self._producer, self._confirms = self._connection, None, None, None
        _release(connection)

    def _publish_all(self, events: Sequence[OutgoingEvent]) -> None:
        producer = self._ready()
        if self._confirms is not None:
            for event in events:
                self._publish(producer, event)
                self._confirms.track(RETURNS_QUEUE, event)
            self._confirms.wait(_TIMEOUT_SECONDS)
            self._confirms.take_confirmed()
        elif len(events) == 1:
            self._publish(producer, events[0])
        else:
            with producer.batch():  # type: ignore[attr-defined]  # missing in its stubs
                for event in events:
                    self._publish(producer, event)

    def _publish(self, producer: Producer, event: OutgoingEvent) -> None:
        producer.publish(
            task_body(event.payload),
            exchange=self._exchange,
            routing_key=RETURNS_QUEUE,
            headers=task_headers(event.task, event.event_id, origin=self._station)
            | ({HEADER: event.status} if event.status else {}),
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            correlation_id=event.event_id,
            reply_to=reply_queue(self._station),
            retry=False,
            mandatory=True,  # RabbitMQ: a missing queue raises an error instead of losing the message
        )

    def _ready(self) -> Producer:
        if self._producer is None:
            self._connection = connect(self._url)
            channel = self._connection.default_channel
            # RabbitMQ discards a message for a queue that is not declared; that would lose the reply as well.
            queue_declaration(reply_queue(self._station)).bind(channel).queue_declare()
            work = queue_declaration(RETURNS_QUEUE).bind(channel)
            try:
                work.queue_declare(passive=not self._is_redis)
            except self._connection.channel_errors:
                # The queue is missing. A station's own RabbitMQ user may not create it; then the journal holds the
                # events until a worker has declared it.
                declare_events_exchange(channel)
            self._confirms = enable_confirms(channel)
            self._producer = Producer(channel)
        return self._producer


class ReplyConsumer:
    """Consumes replies. Not thread-safe. `handle` must have stored the messages when it returns."""

    def __init__(self, url: str, station: str, handle: Callable[[Sequence[str]], None]) -> None:
        self._connection = connect(url, heartbeat=_HEARTBEAT_SECONDS)
        self._handle = handle
        self._received: list[Message] = []
        self._is_redis = read_broker_url(url).is_redis
        queue = queue_declaration(reply_queue(station))
        if self._is_redis:
            # On Redis the workers' declaration sets the queue's expiry. With an expiry declared here as well, kombu
            # would sweep binding tables, including those of other clients' queues.
            queue.queue_arguments = None
        try:
            self._consumer = Consumer(
                self._connection.default_channel,
                [queue],
                on_message=self._received.append,
                prefetch_count=_PREFETCH,
                # On Redis acknowledging takes longer than receiving, and guarantees nothing more: a reply that a crash
                # loses is not in the journal, so the station sends its event again.
                no_ack=self._is_redis,
            )
            self._consumer.consume()
        except BaseException:
            self.close()
            raise

    def receive(self, seconds: float, *, gather: bool) -> None:
        """Receive what comes within `seconds`. Raises whatever the transport raises.

        `gather`: many replies are expected, so handle those together that come close behind each other.
        """
        with contextlib.suppress(TimeoutError):
            self._connection.drain_events(timeout=seconds)
            while gather and len(self._received) < _PREFETCH:
                self._connection.drain_events(timeout=_GATHER_SECONDS)
        if self._received:
            self._handle([_text(message.body) for message in self._received])
            # Acknowledge after storing: the broker redelivers what a crash loses before.
            if not self._is_redis:
                for message in self._received:
                    message.ack()
            self._received.clear()
        self._connection.heartbeat_check()

    def close(self) -> None:
        """Close the connection; RabbitMQ redelivers unacknowledged messages."""
        _release(self._connection)


def _text(body: Any) -> str:
    return body if isinstance(body, str) else bytes(body).decode("utf-8", errors="replace")


def _release(connection: Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(Exception):  # a dead connection cannot always be closed cleanly
            connection.release()
