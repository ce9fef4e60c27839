# SPDX-License-Identifier: Apache-2.0
"""A desk's two queues: what it says goes to `returns`, what it hears comes on its own reply queue."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kombu import Connection, Consumer, Message, Producer, Queue

from schemas.broker_url import Broker, read_broker_url
from schemas.publisher_confirms import PublisherConfirms, confirms_of
from schemas.station_status import HEADER
from schemas.task_message import task_body, task_headers
from schemas.topology import RETURNS_QUEUE, queue_arguments, reply_queue, unacked_keys

_PREFETCH = 50
_TIMEOUT_SECONDS = 5
_HEARTBEAT_SECONDS = 10
"""RabbitMQ: an ear that heard nothing for twice as long has lost its connection without a word, and needs another."""
_GATHER_SECONDS = 0.002
"""When nothing more comes for so long, what was gathered is heard."""


def connect(url: str, station: str, *, heartbeat: int = 0) -> Connection:
    """A connection that fails at once when the broker is away; what was taken waits in the journal.

    Raises `ValueError` when `url` is no broker's.
    """
    broker = read_broker_url(url)
    return Connection(
        broker.url,
        ssl=broker.ssl or False,
        transport_options=_options(broker, station),
        connect_timeout=3,
        heartbeat=heartbeat,
    )


def _options(broker: Broker, station: str) -> dict[str, Any]:
    if not broker.is_redis:
        return {
            "max_retries": 0,
            "read_timeout": _TIMEOUT_SECONDS,
            "write_timeout": _TIMEOUT_SECONDS,
        }
    # Own keys for what is not acknowledged: the shortest visibility timeout of all who share them would win.
    keys = unacked_keys(station)
    options: dict[str, Any] = {
        "socket_timeout": _TIMEOUT_SECONDS,
        "socket_connect_timeout": 3,
        "health_check_interval": 10,
        "max_retries": 0,
        "polling_interval": 0.25,  # how long one BRPOP waits, and so the longest goodbye
        "unacked_mutex_expire": 10,
        "priority_steps": [0],  # answers have no priorities; a user of the server's may read the one list
        "unacked_key": keys[0],
        "unacked_index_key": keys[1],
        "unacked_mutex_key": keys[2],
        **broker.options,
    }
    if broker.scheme != "redis+socket":
        options["socket_keepalive"] = True
    return options


def queue_declaration(name: str) -> Queue:
    """Queue `name` as everybody declares it."""
    return Queue(name, exchange="", routing_key=name, durable=True, queue_arguments=queue_arguments(name))


class OutgoingEvent(NamedTuple):
    """An event to say: the task it asks for, and its JSON, signed."""

    event_id: str
    task: str
    payload: str
    status: Mapping[str, Any] | None = None
    """What goes beside it for monitoring (`schemas.station_status`)."""


class EventPublisher:
    """Says events. Not for two threads at once."""

    def __init__(self, url: str, station: str) -> None:
        self._url = url
        self._station = station
        self._is_redis = read_broker_url(url).is_redis
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._confirms: PublisherConfirms[OutgoingEvent] | None = None

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        """Publish events in order, connecting first if need be; all of them in one round trip.

        Raises whatever the transport raises, when a fresh connection does not do either; then any of them may have
        been said.
        """
        was_connected = self._producer is not None
        try:
            self._publish_all(events)
        except Exception:
            self.close()
            if not was_connected:
                raise
            # The kept connection may have died while nobody spoke; twice said is harmless, unsaid is not.
            try:
                self._publish_all(events)
            except Exception:
                self.close()
                raise

    def connect(self) -> None:
        """Connect, if need be. Raises whatever the transport raises."""
        try:
            self._ready()
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection; the next event makes a new one."""
        connection, self._connection, self._producer, self._confirms = self._connection, None, None, None
        _release(connection)

    def _publish_all(self, events: Sequence[OutgoingEvent]) -> None:
        producer = self._ready()
        if self._confirms is not None:
            for event in events:
                self._publish(producer, event)
                self._confirms.expect(RETURNS_QUEUE, event)
            self._confirms.wait(_TIMEOUT_SECONDS)
            self._confirms.collect()
        elif len(events) == 1:
            self._publish(producer, events[0])
        else:
            with producer.batch():  # type: ignore[attr-defined]  # missing in its stubs
                for event in events:
                    self._publish(producer, event)

    def _publish(self, producer: Producer, event: OutgoingEvent) -> None:
        producer.publish(
            task_body(event.payload),
            exchange="",
            routing_key=RETURNS_QUEUE,
            headers=task_headers(event.task, event.event_id, origin=self._station)
            | ({HEADER: event.status} if event.status else {}),
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            correlation_id=event.event_id,
            reply_to=reply_queue(self._station),
            retry=False,
            mandatory=True,  # RabbitMQ: a queue that is gone is an error, not a message that is gone
        )

    def _ready(self) -> Producer:
        if self._producer is None:
            self._connection = connect(self._url, self._station)
            channel = self._connection.default_channel
            # A message for a queue that nobody declared vanishes on RabbitMQ, and so does an answer.
            queue_declaration(reply_queue(self._station)).bind(channel).queue_declare()
            work = queue_declaration(RETURNS_QUEUE).bind(channel)
            try:
                work.queue_declare(passive=not self._is_redis)
            except self._connection.channel_errors:
                # Not there. A station's own user on RabbitMQ may not make it: then it is held until a worker has.
                work.queue_declare()
            self._confirms = confirms_of(channel)
            self._producer = Producer(channel)
        return self._producer


class ReplyConsumer:
    """Hears answers. Not for two threads at once. `hear` keeps what it is given before it returns."""

    def __init__(self, url: str, station: str, handle: Callable[[Sequence[str]], None]) -> None:
        self._connection = connect(url, station, heartbeat=_HEARTBEAT_SECONDS)
        self._handle = handle
        self._received: list[Message] = []
        is_redis = read_broker_url(url).is_redis
        queue = queue_declaration(reply_queue(station))
        if is_redis:
            # Here the worker's word counts. Given ours, kombu would sweep what belongs to queues that are not ours.
            queue.queue_arguments = None
        try:
            self._consumer = Consumer(
                self._connection.default_channel,
                [queue],
                on_message=self._received.append,
                prefetch_count=_PREFETCH,
                # On Redis acknowledging takes longer than hearing, and keeps no promise: what a crash takes along is
                # an answer that is asked for again, for it was not written down.
                no_ack=is_redis,
            )
            self._consumer.consume()
        except BaseException:
            self.close()
            raise

    def receive(self, seconds: float, *, gather: bool) -> None:
        """Hear what comes within `seconds`. Raises whatever the transport raises.

        `gather`: many are expected, so hear those together that come close behind each other.
        """
        with contextlib.suppress(TimeoutError):
            self._connection.drain_events(timeout=seconds)
            while gather and len(self._received) < _PREFETCH:
                self._connection.drain_events(timeout=_GATHER_SECONDS)
        if self._received:
            self._handle([_text(message.body) for message in self._received])
            # Acknowledged only after it was kept: what is heard and lost by a crash comes again.
            for message in self._received:
                message.ack()
            self._received.clear()
        self._connection.heartbeat_check()

    def close(self) -> None:
        """Let go of the connection; what is not acknowledged is heard again."""
        _release(self._connection)


def _text(body: Any) -> str:
    return body if isinstance(body, str) else bytes(body).decode("utf-8", errors="replace")


def _release(connection: Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(Exception):  # a dead connection cannot always say goodbye
            connection.release()
