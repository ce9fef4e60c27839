# SPDX-License-Identifier: Apache-2.0
"""A consumer on Redis in this process, and malformed messages."""

import base64
import json
import time
from contextlib import suppress
from typing import Any

import pytest
from kombu import Consumer, Producer, Queue

from schemas.topology import DEAD_LETTER_QUEUE
from tests.polling import TIMEOUT
from workers.redis_transport.transport import Connection

OPTIONS = {"visibility_timeout": 60, "unacked_restore_interval": 1, "unacked_restore_throttle": 1, "socket_timeout": 5}


class RedisConsumer:
    """A consumer and a producer in this process, on the atomic transport or on kombu's."""

    def __init__(self, url, *, kind=Connection, queues=("returns",), prefetch=10, no_ack=False, **options):
        transport_options = {**OPTIONS, "deadletter_queue": DEAD_LETTER_QUEUE, **options}
        if kind is Connection:
            transport_options["atomic_receive"] = True
        self.connection = kind(url, transport_options=transport_options)
        self.channel = self.connection.channel()
        self.channel.basic_qos(0, prefetch, False)
        self.messages: list[Any] = []
        self.hub = None
        self._producer = Producer(self.connection.channel())
        consumer = Consumer(
            self.channel, [Queue(name) for name in queues], on_message=self.messages.append, no_ack=no_ack
        )
        consumer.consume()

    def send(self, *bodies, queue="returns", **options):
        """Publish one message for each body."""
        for body in bodies:
            self._producer.publish(body, exchange="", routing_key=queue, **options)

    def take(self, number):
        """Consume until `number` messages are there in all; return their payloads."""
        deadline = time.monotonic() + TIMEOUT
        while len(self.messages) < number:
            assert time.monotonic() < deadline, f"received only {len(self.messages)} messages"
            self.drain(0.2)
        return [message.payload for message in self.messages]

    def drain(self, seconds):
        """Consume what arrives within `seconds`."""
        with suppress(TimeoutError):
            self.connection.drain_events(timeout=seconds)

    def idle(self, seconds=0.3):
        """Wait for messages; none may arrive."""
        with pytest.raises(TimeoutError):
            self.connection.drain_events(timeout=seconds)

    def ack(self):
        """Acknowledge all messages."""
        for message in self.messages:
            if not message.acknowledged:
                message.ack()
        self.messages.clear()

    def die(self):
        """Close the connection as a killed process does: no message is restored."""
        self.channel.do_restore = False
        self.channel.qos._on_collect.cancel()
        self.connection.release()

    def close(self):
        """Close the connection, and an event loop if there is one."""
        self.connection.release()
        if self.hub is not None:
            self.hub.close()
            self.hub = None


def envelope(tag="t-1", **changes):
    """A message in the form that kombu writes."""
    return {
        "body": base64.b64encode(b'"hello"').decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {},
        "properties": {
            "delivery_tag": tag,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "returns"},
            "body_encoding": "base64",
            "priority": 0,
        },
        **changes,
    }


MALFORMED = {
    "not JSON": b"\x80\x04no json at all",
    "not UTF-8": json.dumps(envelope()).encode().replace(b"utf-8", b"ut\xff-8"),
    "a list": b"[1, 2]",
    "a word": b'"word"',
    "null": b"null",
    "empty": b"",
    "no properties": json.dumps({"body": "x"}).encode(),
    "properties are a list": json.dumps(envelope(properties=[])).encode(),
    "no body": json.dumps({k: v for k, v in envelope().items() if k != "body"}).encode(),
    "no tag": json.dumps(envelope(tag=None)).encode(),
    "no delivery info": json.dumps(envelope(properties={"delivery_tag": "x"})).encode(),
    "headers are a list": json.dumps(envelope(headers=["x"])).encode(),
    "body is not base64": json.dumps(envelope(body="***x")).encode(),
    "unknown body encoding": json.dumps(
        envelope(properties=envelope()["properties"] | {"body_encoding": "rot13"})
    ).encode(),
    "a number that one JSON parser accepts": json.dumps(envelope())
    .encode()
    .replace(b'"priority": 0', b'"priority": 0x10'),
    "deep": b'{"body":' + b"[" * 5000 + b"]" * 5000 + b"}",
}
"""Messages that are not in the form that kombu writes."""
