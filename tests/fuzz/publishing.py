# SPDX-License-Identifier: Apache-2.0
"""Publish samples to `returns` as a hostile client can: raw list entries on Redis, plain AMQP on RabbitMQ."""

import base64
import json
from collections.abc import Sequence
from typing import Any, Protocol
from uuid import uuid4

import redis
from kombu import Connection, Producer

from schemas.publisher_confirms import PublisherConfirms
from schemas.topology import RETURNS_QUEUE
from tests.fuzz.mutations import Sample
from workers.runtime.queues import queue_declaration

MAX_HEADERS = 50_000
"""Characters of headers: RabbitMQ closes the connection of a client that sends more than a frame."""


class Publisher(Protocol):
    """Publishes to `returns`, and counts what waits there."""

    def publish(self, samples: Sequence[Sample]) -> int:
        """Publish `samples` in order; return how many the broker has."""

    def waiting(self) -> int:
        """Messages that wait or are not acknowledged."""

    def close(self) -> None:
        """Close the connection."""


class RedisPublisher:
    """Pushes list entries."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def publish(self, samples: Sequence[Sample]) -> int:
        """Push the entry of each sample."""
        self._client.lpush(
            RETURNS_QUEUE, *(sample.raw if sample.raw is not None else _entry(sample) for sample in samples)
        )
        return len(samples)

    def waiting(self) -> int:
        """Entries of the list, and unacknowledged messages."""
        return int(self._client.llen(RETURNS_QUEUE)) + int(self._client.hlen("unacked"))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _entry(sample: Sample) -> bytes:
    properties = {
        "delivery_tag": str(uuid4()), "delivery_mode": 2, "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": RETURNS_QUEUE}, **sample.properties,
    }  # fmt: skip
    entry = {
        "body": base64.b64encode(sample.body).decode(), "content-type": sample.content_type,
        "content-encoding": sample.content_encoding, "headers": sample.headers, "properties": properties, **sample.entry,
    }  # fmt: skip
    return json.dumps(entry).encode()


class RabbitPublisher:
    """Publishes over AMQP, and waits for the server's confirms."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url)
        self._channel: Any = self._connection.channel()
        self._producer = Producer(self._channel)
        self._confirms: PublisherConfirms[None] = PublisherConfirms(self._channel)
        self._queue = queue_declaration(RETURNS_QUEUE).bind(self._channel)
        self._queue.queue_declare()

    def publish(self, samples: Sequence[Sample]) -> int:
        """Publish what AMQP can carry; the client refuses other headers before it sends a byte."""
        number = 0
        for sample in samples:
            if len(repr(sample.headers)) > MAX_HEADERS:
                continue
            properties = {name: held for name, held in sample.properties.items() if held is not None}
            try:
                self._producer.publish(
                    sample.body, exchange="", routing_key=RETURNS_QUEUE, headers=sample.headers, delivery_mode=2,
                    content_type=sample.content_type, content_encoding=sample.content_encoding, **properties,
                )  # fmt: skip
            except Exception as error:
                if isinstance(error, OSError):
                    raise
                continue  # no AMQP table or short string
            self._confirms.track(RETURNS_QUEUE, None)
            number += 1
        self._confirms.wait(30.0)
        self._confirms.take_confirmed()
        return number

    def waiting(self) -> int:
        """Ready messages. Those that a worker holds are not counted."""
        declared: Any = self._queue.queue_declare(passive=True)
        return int(declared.message_count)

    def close(self) -> None:
        """Close the connection."""
        self._connection.release()
