# SPDX-License-Identifier: Apache-2.0
"""The queue of the dead letters, on either broker: looked at, let go of, and messages put back where they were.

A letter stays with the broker until its row is committed. On Redis it is read where it lies and removed by its content; on
RabbitMQ it is taken and acknowledged.
"""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from kombu import Connection, Producer

from schemas.topology import DEAD_LETTER_QUEUE
from tasks.ports import DeadLetter, DeadLetters, Envelope, Outgoing
from workers.runtime.queues import queue_declaration


@contextmanager
def open_dead_letters(connect: Callable[[], Connection]) -> Iterator[DeadLetters]:
    """The dead letters over a connection of their own."""
    connection = connect()
    try:
        connection.ensure_connection(max_retries=1, timeout=5)
        redis = connection.transport.driver_type == "redis"
        yield _OnRedis(connection) if redis else _OnRabbit(connection)
    finally:
        connection.release()


class _OnEither:
    def __init__(self, connection: Connection) -> None:
        self.channel: Any = connection.default_channel

    def requeue(self, message: Outgoing) -> None:
        """Publish, and return when the broker has it."""
        queue_declaration(message.queue).bind(self.channel).queue_declare()
        around = message.envelope
        Producer(self.channel).publish(
            message.body,
            exchange="",
            routing_key=message.queue,
            headers=dict(around.headers),
            content_type=around.content_type,
            content_encoding=around.content_encoding,
            correlation_id=around.correlation_id,
            reply_to=around.reply_to,
            delivery_mode=2,
            mandatory=True,
            retry=False,
        )


class _OnRabbit(_OnEither):
    def peek(self, limit: int) -> Sequence[DeadLetter]:
        """Take the oldest letters; what is not acknowledged comes back when the connection ends."""
        queue_declaration(DEAD_LETTER_QUEUE).bind(self.channel).queue_declare()
        taken = iter(partial(self.channel.basic_get, DEAD_LETTER_QUEUE), None)
        return [_taken(message) for message in islice(taken, limit)]

    def remove(self, letters: Sequence[DeadLetter]) -> None:
        """Acknowledge."""
        for letter in letters:
            self.channel.basic_ack(letter.handle)


def _taken(message: Any) -> DeadLetter:
    properties = message.properties
    return DeadLetter(
        body=message.body if isinstance(message.body, bytes) else message.body.encode(),
        envelope=Envelope(
            headers=message.headers if isinstance(message.headers, dict) else {},
            content_type=properties.get("content_type"),
            content_encoding=properties.get("content_encoding"),
            correlation_id=properties.get("correlation_id"),
            reply_to=properties.get("reply_to"),
        ),
        handle=message.delivery_info["delivery_tag"],
    )


class _OnRedis(_OnEither):
    def peek(self, limit: int) -> Sequence[DeadLetter]:
        """Read the oldest letters; the list's right end has them."""
        raws = self.channel.client.lrange(DEAD_LETTER_QUEUE, -limit, -1)
        return [_read(raw) for raw in reversed(raws)]

    def remove(self, letters: Sequence[DeadLetter]) -> None:
        """Remove each once, looking from the old end."""
        with self.channel.client.pipeline(transaction=False) as pipe:
            for letter in letters:
                pipe.lrem(DEAD_LETTER_QUEUE, -1, letter.handle)
            pipe.execute()


def _read(raw: bytes) -> DeadLetter:
    """A list's entry: an envelope of kombu, or what somebody wrote straight there."""
    try:
        message = json.loads(raw)
        properties, headers = message["properties"], message.get("headers")
        body = message["body"]
        content = (
            base64.b64decode(body, validate=True) if properties.get("body_encoding") == "base64" else body.encode()
        )
        info = properties.get("delivery_info") or {}
        letter = DeadLetter(
            body=content,
            envelope=Envelope(
                headers=headers if isinstance(headers, dict) else {},
                content_type=message.get("content-type"),
                content_encoding=message.get("content-encoding"),
                correlation_id=properties.get("correlation_id"),
                reply_to=properties.get("reply_to"),
            ),
            handle=raw,
            routing_key=info.get("routing_key"),
            identity=str(properties.get("delivery_tag")).encode(errors="replace"),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return DeadLetter(raw, Envelope({"x-quarantine-reason": "not_json"}), raw)
    return letter
