# SPDX-License-Identifier: Apache-2.0
"""The dead-letter queue on either broker: read letters, remove them, requeue messages.

A letter stays with the broker until its row is committed. On Redis it is read in its place and removed by its content; on
RabbitMQ it is received and acknowledged.
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
    """Open the dead-letter queue over a separate connection."""
    connection = connect()
    try:
        connection.ensure_connection(max_retries=1, timeout=5)
        redis = connection.transport.driver_type == "redis"
        yield _RedisDeadLetters(connection) if redis else _RabbitDeadLetters(connection)
    finally:
        connection.release()


class _Queue:
    def __init__(self, connection: Connection) -> None:
        self.channel: Any = connection.default_channel

    def requeue(self, message: Outgoing) -> None:
        """Publish `message`; return when the broker has confirmed it."""
        queue_declaration(message.queue).bind(self.channel).queue_declare()
        envelope = message.envelope
        Producer(self.channel).publish(
            message.body,
            exchange="",
            routing_key=message.queue,
            headers=dict(envelope.headers),
            content_type=envelope.content_type,
            content_encoding=envelope.content_encoding,
            correlation_id=envelope.correlation_id,
            reply_to=envelope.reply_to,
            delivery_mode=2,
            mandatory=True,
            retry=False,
        )


class _RabbitDeadLetters(_Queue):
    def peek(self, limit: int) -> Sequence[DeadLetter]:
        """Receive the oldest letters. RabbitMQ requeues those that are not acknowledged when the connection closes."""
        queue_declaration(DEAD_LETTER_QUEUE).bind(self.channel).queue_declare()
        messages = iter(partial(self.channel.basic_get, DEAD_LETTER_QUEUE), None)
        return [_from_message(message) for message in islice(messages, limit)]

    def remove(self, letters: Sequence[DeadLetter]) -> None:
        """Acknowledge."""
        for letter in letters:
            self.channel.basic_ack(letter.handle)


def _from_message(message: Any) -> DeadLetter:
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


class _RedisDeadLetters(_Queue):
    def peek(self, limit: int) -> Sequence[DeadLetter]:
        """Read the oldest letters, at the right end of the list."""
        entries = self.channel.client.lrange(DEAD_LETTER_QUEUE, -limit, -1)
        return [_from_entry(entry) for entry in reversed(entries)]

    def remove(self, letters: Sequence[DeadLetter]) -> None:
        """Remove each letter once, searching from the old end of the list."""
        with self.channel.client.pipeline(transaction=False) as pipe:
            for letter in letters:
                pipe.lrem(DEAD_LETTER_QUEUE, -1, letter.handle)
            pipe.execute()


def _from_entry(raw: bytes) -> DeadLetter:
    """Parse an entry of the list: an envelope of kombu, or any bytes that another program wrote there."""
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
