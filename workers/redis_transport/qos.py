# SPDX-License-Identifier: Apache-2.0
"""Acknowledgement of the atomic transport: kombu's records, the server's clock, a delivery limit."""

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

kombu_redis: Any = import_module("kombu.transport.redis")
kombu_virtual: Any = import_module("kombu.transport.virtual")
"""`Any` to the type checker, as all private API of kombu in this package: its stubs cover the public API only."""

LOSS_COUNTS_EXPIRE: Final = 7 * 24 * 3600
"""How long the counts of losses are kept after the last one, in seconds."""

_FAILOVER_ERRORS = ("READONLY", "UNBLOCKED", "MASTERDOWN")
"""Prefixes of the errors of a server that is no longer the master."""

_SERVER_ERRORS = (*_FAILOVER_ERRORS, "OOM", "LOADING", "BUSY", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN")
"""Prefixes of the errors that the state of the server causes, and no message."""


def is_failover_error(error: "redis.ResponseError") -> bool:
    """Return True if the server refuses the command because another server is now the master."""
    return isinstance(error, redis.exceptions.ReadOnlyError) or str(error).startswith(_FAILOVER_ERRORS)


def is_server_error(error: "redis.ResponseError") -> bool:
    """Return True if the server may accept the same command later."""
    return isinstance(error, redis.exceptions.OutOfMemoryError) or str(error).startswith(_SERVER_ERRORS)


def _is_json(letter: dict[str, Any]) -> bool:
    """Return True if `letter` can be written as JSON."""
    try:
        json.dumps(letter)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _is_transient(error: Exception, connection_errors: tuple[type[Exception], ...]) -> bool:
    """Return True if the same message may be requeued later: kombu lists `KeyError` among the connection's errors."""
    if isinstance(error, redis.ResponseError):
        return is_server_error(error) and not isinstance(error, redis.exceptions.NoPermissionError)
    return isinstance(error, connection_errors) and not isinstance(error, KeyError)


class MalformedEnvelopeError(Exception):
    """A list entry lacks a part that each message of kombu has. Its text is the reason of the dead letter."""


def validate_envelope(message: Any) -> dict[str, Any]:
    """Return `message` unchanged. Raises `MalformedEnvelopeError` with the first missing part.

    The checks of the script `TAKE`, for messages that BRPOP took.
    """
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


def set_origin(message: dict[str, Any], queue: str) -> dict[str, Any]:
    """Replace the sender's delivery information by the queue that the message was taken from; returns `message`.

    kombu requeues a message to the queue in its delivery information, so the sender must not choose it.
    """
    info = message["properties"]["delivery_info"]
    origin: dict[str, Any] = {"exchange": "", "routing_key": queue}
    if info.get("redelivered") is True:
        origin["redelivered"] = True
    message["properties"]["delivery_info"] = origin
    return message


class AtomicMessage(kombu_virtual.Message):
    """kombu's message. Raises `MalformedEnvelopeError` for an envelope that it cannot read."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        try:
            if not isinstance(payload.get("headers") or {}, dict):
                raise MalformedEnvelopeError("no_headers")
            super().__init__(payload, channel=channel, **kwargs)
        except (AttributeError, KeyError, LookupError, TypeError, ValueError) as error:
            raise MalformedEnvelopeError(f"unreadable: {type(error).__name__}") from error


class QoS(kombu_redis.QoS):
    """kombu's acknowledgement with the server's clock, batched acknowledgements, and a delivery limit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.pending_acks: deque[str] = deque()
        """Delivery tags that the program has acknowledged and that are not sent to the server yet."""
        self._recorded: set[str] = set()
        self._lost: set[str] = set()
        self.counts_all_losses = False
        """True when the program ends by an error: each message that it holds counts as lost."""
        super().__init__(*args, **kwargs)

    def add_recorded(self, tags: Iterable[str]) -> None:
        """Count messages that the server has recorded as unacknowledged, before their delivery.

        From now on `restore` can return them to their queue.
        """
        if self._dirty:
            self._flush()
        for tag in tags:
            self._recorded.add(tag)
            self._delivered[tag] = None

    def append(self, message: Any, delivery_tag: str) -> None:
        """Store `message` until it is acknowledged. Writes its record, unless the script has done so."""
        if delivery_tag in self._recorded:
            self._recorded.discard(delivery_tag)
        else:
            info = message.delivery_info
            record = json.dumps([message._raw, info["exchange"], info["routing_key"]])  # noqa: SLF001
            with self.pipe_or_acquire() as pipe:
                now = self.channel.server_time()
                pipe.zadd(self.unacked_index_key, {delivery_tag: now}).hset(self.unacked_key, delivery_tag, record)
                pipe.execute()
        kombu_virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge with the next call to the server, in this turn of the event loop; without a loop, at once."""
        if self.channel.defers_acks:
            self.pending_acks.append(delivery_tag)
        else:
            self._delete_records([delivery_tag])
        kombu_virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Requeue a message at the end of its queue; without `requeue`, make it a dead letter, as RabbitMQ does.

        The program may set headers of the dead letter as the attribute `rejection` of the message.
        """
        if requeue:
            super().reject(delivery_tag, requeue=True)
            return
        message = self._delivered.get(delivery_tag)
        if message is not None:
            queue = message.delivery_info["routing_key"]
            marks = dict(getattr(message, "rejection", {}))
            reason = marks.pop("x-quarantine-reason", "rejected")
            letter = self.channel.make_dead_letter(message._raw, reason, queue, **marks)  # noqa: SLF001
            if not _is_json(letter):
                letter = self.channel.wrap_as_dead_letter(repr(message._raw), reason, "not_json")  # noqa: SLF001
            self.move_to_dead_letters(delivery_tag, letter)
            log.error("message_quarantined", reason=reason, queue=self.channel.dead_letters, state=queue)
        self.ack(delivery_tag)

    def count_loss(self, tag: str) -> None:
        """Count the message `tag` as lost when the channel closes and returns it to its queue."""
        self._lost.add(tag)

    def flush_acks(self) -> None:
        """Send pending acknowledgements to the server. On an error they stay pending."""
        if not self.pending_acks:
            return
        tags = list(self.pending_acks)
        self._delete_records(tags)
        for _ in tags:
            self.pending_acks.popleft()

    def restore(self, tags: Sequence[str]) -> None:
        """Return messages that no consumer has begun to the front of their queues. Not counted as a loss.

        A message that the server refuses now stays unacknowledged, and does not stop the others. The sweep restores it.
        """
        returned: list[str] = []
        for tag in reversed(tags):
            try:
                self.restore_by_tag(tag)
                returned.append(tag)
            except redis.ResponseError as error:
                if is_failover_error(error):
                    raise
                log.error("message_not_restored", error=str(error)[:200])  # noqa: TRY400
            self._delivered.pop(tag, None)
            self._recorded.discard(tag)
        self._uncount_losses([tag for tag in returned if tag not in self._lost and not self.counts_all_losses])

    def move_to_dead_letters(self, tag: str, letter: dict[str, Any]) -> bool:
        """Replace the unacknowledged message `tag` by `letter` in the dead-letter queue; False if there is none."""
        found = self.channel.run_script(
            scripts.MOVE_TO_DEAD_LETTERS,
            ("unacked_key", "unacked_index_key", "deliveries_key", "dead_letters"),
            (tag, json.dumps(letter)),
        )
        self._delivered.pop(tag, None)
        self._recorded.discard(tag)
        return bool(found)

    def restore_unacked(self, client: Any = None) -> None:
        """Return all messages to their queues when the channel closes.

        If the server refuses, they are redelivered after the visibility timeout.
        """
        try:
            self.restore(list(self._delivered))
        except redis.ResponseError as error:
            log.error("messages_not_restored", count=len(self._delivered), error=str(error)[:200])  # noqa: TRY400
            self._delivered.clear()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Send pending acknowledgements, then return the other messages, when the channel closes."""
        if self.pending_acks:
            with suppress(*self.channel.connection_errors, redis.ResponseError):
                self.flush_acks()
        super().restore_unacked_once(stderr)

    def restore_visible(self, start: int = 0, num: int | None = 10, interval: int = 10) -> None:
        """Requeue messages that are unacknowledged longer than the visibility timeout, by the server's clock."""
        self._vrestore_count += 1
        if (self._vrestore_count - 1) % (interval or 1):
            return
        with self.channel.conn_or_acquire() as client:
            ceiling = self.channel.server_time() - self.visibility_timeout
            with (
                # A server whose memory is full refuses to requeue; the next sweep tries again.
                suppress(kombu_redis.MutexHeld, redis.exceptions.OutOfMemoryError),
                kombu_redis.Mutex(client, self.unacked_mutex_key, self.unacked_mutex_expire),
            ):
                overdue = client.zrange(
                    self.unacked_index_key, ceiling, 0, desc=True, byscore=True, offset=num and start, num=num
                )
                for tag in overdue or []:
                    self.restore_by_tag(bytes_to_str(tag), client)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Requeue a message. One that itself prevents that becomes a dead letter.

        Raises the errors of the connection, and those that the state of the server causes.
        """
        with self.channel.conn_or_acquire(client) as connected:
            record = connected.hget(self.unacked_key, tag)
            try:
                super().restore_by_tag(tag, connected, leftmost)
            except Exception as error:
                if _is_transient(error, self.channel.connection_errors):
                    raise
                letter = self.channel.wrap_as_dead_letter(record or b"", "not_restored", type(error).__name__)
                # If the transaction had begun, the record is gone: publish the letter separately.
                if not self.move_to_dead_letters(tag, letter) and record is not None:
                    self.channel.publish_dead_letter(letter)
                log.error(  # noqa: TRY400
                    "message_quarantined", reason="not_restored", queue=self.channel.dead_letters,
                    error=type(error).__name__,
                )  # fmt: skip

    def _delete_records(self, tags: Sequence[str]) -> None:
        # Not a transaction: a server whose memory is full may refuse one. A tag in the index alone has no effect.
        with self.channel.conn_or_acquire() as client:
            pipe = client.pipeline(transaction=False).hdel(self.unacked_key, *tags)
            pipe.zrem(self.unacked_index_key, *tags).hdel(self.channel.deliveries_key, *tags).execute()

    def _uncount_losses(self, tags: Sequence[str]) -> None:
        if not tags:
            return
        key = self.channel.global_keyprefix + self.channel.deliveries_key
        pipe = self.channel.plain_client().pipeline()
        for tag in tags:
            pipe.hincrby(key, tag, -1)
        pipe.expire(key, LOSS_COUNTS_EXPIRE).execute()
