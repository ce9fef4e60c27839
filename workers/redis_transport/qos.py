# SPDX-License-Identifier: Apache-2.0
"""Acknowledgement and messages of the atomic transport: kombu's own records, the server's clock, an end to redeliveries."""

import json
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

import redis
import structlog
from kombu.utils.encoding import bytes_to_str

from workers.redis_transport import scripts

log = structlog.get_logger()

stock: Any = import_module("kombu.transport.redis")
virtual: Any = import_module("kombu.transport.virtual")
"""Any to the type checker, as all that is kombu's own here: its stubs tell of public parts only."""

DELIVERIES_KEPT: Final = 7 * 24 * 3600
"""For how long losses are counted, in seconds after the last one."""

_GONE = ("READONLY", "UNBLOCKED", "MASTERDOWN")
"""Beginnings of errors of a server that is no master any more."""


def is_no_master(error: "redis.ResponseError") -> bool:
    """Whether the server refuses because another one is the master now."""
    return isinstance(error, redis.exceptions.ReadOnlyError) or str(error).startswith(_GONE)


class MalformedEnvelopeError(Exception):
    """This is no message: it has not the parts that every message of kombu has."""


def opened(message: Any) -> dict[str, Any]:
    """`message` as it is. Raises `MalformedEnvelopeError` with what it has not: what `TAKE` looks at, for who does not."""
    if not isinstance(message, dict):
        raise MalformedEnvelopeError("not_an_envelope")
    properties = message.get("properties")
    if not isinstance(properties, dict):
        raise MalformedEnvelopeError("no_properties")
    if message.get("body") is None:
        raise MalformedEnvelopeError("no_body")
    if not (isinstance(properties.get("delivery_tag"), str) and properties["delivery_tag"]):
        raise MalformedEnvelopeError("no_delivery_tag")
    info = properties.get("delivery_info")
    if not (
        isinstance(info, dict) and isinstance(info.get("exchange"), str) and isinstance(info.get("routing_key"), str)
    ):
        raise MalformedEnvelopeError("no_delivery_info")
    return message


class AtomicMessage(virtual.Message):
    """A message whose envelope was looked at."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        try:
            if not isinstance(payload.get("headers") or {}, dict):
                raise MalformedEnvelopeError("no_headers")
            super().__init__(payload, channel=channel, **kwargs)
        except (AttributeError, KeyError, LookupError, TypeError, ValueError) as error:
            raise MalformedEnvelopeError(f"unreadable: {type(error).__name__}") from error


class QoS(stock.QoS):
    """kombu's acknowledgement, with the server's clock, in company, and with an end to redeliveries."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.acked: deque[str] = deque()
        """Tags that are acknowledged here, and not on the server yet."""
        self._recorded: set[str] = set()
        super().__init__(*args, **kwargs)

    def expect(self, tags: Iterable[str]) -> None:
        """Count messages that the server recorded as delivered, before they are: each can be given back from now on."""
        if self._dirty:
            self._flush()
        for tag in tags:
            self._recorded.add(tag)
            self._delivered[tag] = None

    def append(self, message: Any, delivery_tag: str) -> None:
        """Keep `message` until it is acknowledged."""
        if delivery_tag in self._recorded:
            self._recorded.discard(delivery_tag)
        else:
            info = message.delivery_info
            record = json.dumps([message._raw, info["exchange"], info["routing_key"]])  # noqa: SLF001
            with self.pipe_or_acquire() as pipe:
                now = self.channel.server_time()
                pipe.zadd(self.unacked_index_key, {delivery_tag: now}).hset(self.unacked_key, delivery_tag, record)
                pipe.execute()
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge with the next call to the server, which is in this turn of the loop; at once when there is none."""
        if self.channel.turns:
            self.acked.append(delivery_tag)
        else:
            self._forget([delivery_tag])
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put a message back at the end of its queue; or, as RabbitMQ does, among the dead letters."""
        if requeue:
            super().reject(delivery_tag, requeue=True)
            return
        message = self._delivered.get(delivery_tag)
        if message is not None:
            queue = message.delivery_info["routing_key"]
            envelope = self.channel.marked(message._raw, "rejected", queue)  # noqa: SLF001
            self.dead_letter(delivery_tag, envelope, "rejected", state=queue)
        self.ack(delivery_tag)

    def flush_acks(self) -> None:
        """Tell the server what is acknowledged, if it does not know."""
        if not self.acked:
            return
        tags = list(self.acked)
        self._forget(tags)
        for _ in tags:
            self.acked.popleft()

    def give_back(self, tags: Sequence[str]) -> None:
        """Put messages that nobody has begun back to where they were taken: this counts not as a loss."""
        for tag in reversed(tags):
            self.restore_by_tag(tag)
            self._delivered.pop(tag, None)
            self._recorded.discard(tag)
        self._uncount(tags)

    def dead_letter(self, tag: str, envelope: dict[str, Any], reason: str, **said: Any) -> None:
        """Move a message that is held to the dead letters, and say so."""
        self.channel.run_script(
            scripts.BURY,
            ("unacked_key", "unacked_index_key", "deliveries_key", "dead_letters"),
            (tag, json.dumps(envelope)),
        )
        self._delivered.pop(tag, None)
        self._recorded.discard(tag)
        log.error("message_quarantined", reason=reason, queue=self.channel.dead_letters, **said)

    def restore_unacked(self, client: Any = None) -> None:
        """Give everything back: the channel closes. What the server does not let us give back comes when it is overdue."""
        try:
            self.give_back(list(self._delivered))
        except redis.ResponseError as error:
            log.error("messages_not_restored", count=len(self._delivered), error=str(error)[:200])  # noqa: TRY400
            self._delivered.clear()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Tell the server what is acknowledged, then give the rest back: the channel closes."""
        if self.acked:
            with suppress(*self.channel.connection_errors, redis.ResponseError):
                self.flush_acks()
        super().restore_unacked_once(stderr)

    def restore_visible(self, start: int = 0, num: int | None = 10, interval: int = 10) -> None:
        """Give back what somebody has held longer than the visibility timeout, by the server's clock."""
        self._vrestore_count += 1
        if (self._vrestore_count - 1) % (interval or 1):
            return
        with self.channel.conn_or_acquire() as client:
            ceiling = self.channel.server_time() - self.visibility_timeout
            with (
                # A full server lets nobody give anything back; the next sweep comes.
                suppress(stock.MutexHeld, redis.exceptions.OutOfMemoryError),
                stock.Mutex(client, self.unacked_mutex_key, self.unacked_mutex_expire),
            ):
                overdue = client.zrange(
                    self.unacked_index_key, ceiling, 0, desc=True, byscore=True, offset=num and start, num=num
                )
                for tag in overdue or []:
                    self.restore_by_tag(bytes_to_str(tag), client)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back to its queue. A record that cannot be read goes to the dead letters."""
        try:
            super().restore_by_tag(tag, client, leftmost)
        except (ValueError, TypeError, RecursionError):
            with self.channel.conn_or_acquire(client) as connected:
                record = connected.hget(self.unacked_key, tag) or b""
            self.dead_letter(tag, self.channel.wrapped(record, "unreadable"), "unreadable")

    def _forget(self, tags: Sequence[str]) -> None:
        # Not as a transaction: a full server may refuse those. A tag in the index alone means nothing to anybody.
        with self.channel.conn_or_acquire() as client:
            pipe = client.pipeline(transaction=False).hdel(self.unacked_key, *tags)
            pipe.zrem(self.unacked_index_key, *tags).hdel(self.channel.deliveries_key, *tags).execute()

    def _uncount(self, tags: Sequence[str]) -> None:
        if not tags:
            return
        key = self.channel.global_keyprefix + self.channel.deliveries_key
        pipe = self.channel.plain_client().pipeline()
        for tag in tags:
            pipe.hincrby(key, tag, -1)
        pipe.expire(key, DELIVERIES_KEPT).execute()
