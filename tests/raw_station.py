# SPDX-License-Identifier: Apache-2.0
"""A station in plain kombu, as another language would write it: no code of `stations/`."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

from kombu import Connection, Consumer, Message, Producer, Queue

from schemas.events_exchange import declare_events_exchange
from schemas.task_message import task_body, task_headers
from schemas.topology import (
    CODE_PATTERN,
    EVENTS_EXCHANGE,
    PROCESS_RETURN,
    PROCESS_SCAN,
    RETURNS_QUEUE,
    queue_arguments,
    reply_queue,
)
from tests.polling import TIMEOUT


def encoded(body: Any) -> bytes:
    """The body of a message as bytes; kombu's Redis transport gives text."""
    return body if isinstance(body, bytes) else body.encode()


def is_code(station: object) -> bool:
    """True for a code that a station can have."""
    return isinstance(station, str) and re.fullmatch(CODE_PATTERN, station) is not None


class RawStation:
    """A connection of one station, or of several that share it: events go to `returns`, replies come on reply queues."""

    def __init__(self, broker_url: str, station: str = "main-desk-1") -> None:
        self._connection = Connection(broker_url)
        channel = self._connection.channel()
        self._exchange = ""
        if self._connection.transport.driver_type == "amqp":
            self._exchange = EVENTS_EXCHANGE
            declare_events_exchange(channel)
        else:
            Queue(RETURNS_QUEUE, exchange="", routing_key=RETURNS_QUEUE)(channel).queue_declare()
        self._producer = Producer(channel)
        self.reply_to = reply_queue(station)
        self.received: list[dict[str, Any]] = []
        """All messages from the reply queue, in order."""
        self.bodies: list[bytes] = []
        """Their bodies."""
        self.sent: dict[str, dict[str, Any]] = {}
        """Payloads by event id."""
        self._consumer = Consumer(self._connection.channel(), [], on_message=self._on_message)
        self._consume(self.reply_to)

    def send(self, payload: dict[str, Any], *, task: str | None = None, reply_to: str | None = None) -> str:
        """Publish an event; return its id. Without `task`, a barcode makes it a scan, all else a Return.

        The reply goes to the queue of the station that the event names, unless `reply_to` names another.
        """
        event_id = str(payload["event_id"])
        if reply_to is None:
            reply_to = reply_queue(payload["station"]) if is_code(payload.get("station")) else self.reply_to
            self._consume(reply_to)
        self.sent[event_id] = payload
        task = task or (PROCESS_SCAN if "barcode" in payload else PROCESS_RETURN)
        self._producer.publish(
            task_body(json.dumps(payload)),
            exchange=self._exchange,
            routing_key=RETURNS_QUEUE,
            headers=task_headers(task, event_id, origin="a test"),
            content_type="application/json",
            content_encoding="utf-8",
            reply_to=reply_to,
            correlation_id=event_id,
        )
        return event_id

    def replies_to(self, *event_ids: str, timeout: float = TIMEOUT) -> list[dict[str, Any]]:
        """Wait for the reply to each of `event_ids`; return the first reply to each, in that order."""
        self.wait_until(lambda: set(event_ids) <= {reply["event_id"] for reply in self.replies()}, timeout)
        first = {reply["event_id"]: reply for reply in reversed(self.replies())}
        return [first[event_id] for event_id in event_ids]

    def replies(self) -> list[dict[str, Any]]:
        """The replies received so far."""
        return [message for message in self.received if message["type"].startswith("bookdrop.return-reply")]

    def notices(self) -> list[dict[str, Any]]:
        """The slip notices received so far."""
        return [message for message in self.received if message["type"].startswith("bookdrop.slip-notice")]

    def wait_until(self, condition: Callable[[], Any], timeout: float = TIMEOUT) -> None:
        """Consume until `condition()` is true."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout:g} s; received last: {self.received[-3:]}"
            try:
                self._connection.drain_events(timeout=0.2)
            except TimeoutError:
                continue

    def close(self) -> None:
        """Close the connection."""
        self._connection.release()

    def _consume(self, name: str) -> None:
        if not self._consumer.consuming_from(name):
            self._consumer.add_queue(Queue(name, exchange="", routing_key=name, queue_arguments=queue_arguments(name)))
            self._consumer.consume()

    def _on_message(self, message: Message) -> None:
        body = encoded(message.body)
        self.bodies.append(body)
        self.received.append(json.loads(body))
        message.ack()
