# SPDX-License-Identifier: Apache-2.0
"""Atomic multi-receive: a message never leaves its list before the server has recorded it as unacknowledged.

The channel waits with a blocking peek, `BLMOVE q q RIGHT RIGHT`, which moves the oldest message to its own place. Then
one script (`scripts.TAKE`) acknowledges processed messages and takes as many as the prefetch count allows. Both use the
connection that kombu polls. A channel that consumes several queues, or whose server lacks or forbids the commands,
receives with BRPOP as kombu does. Malformed and rejected messages become dead letters in both cases.
"""

import enum
import json
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty
from time import monotonic
from typing import Any, Final

import redis
import structlog
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps

from workers.redis_transport import scripts
from workers.redis_transport.dead_lettering import DeadLettering
from workers.redis_transport.qos import (
    LOSS_COUNTS_EXPIRE,
    AtomicMessage,
    MalformedEnvelopeError,
    QoS,
    is_failover_error,
    set_origin,
    validate_envelope,
)

log = structlog.get_logger()

OPTIONS: Final = ("deliveries_key", "delivery_limit", "receive_limit")
"""Transport options beside those of kombu. `AtomicReceive` documents them."""


class Command(enum.Enum):
    """The command that was sent last on the polled connection."""

    PEEK = "BLMOVE"
    TAKE = "EVALSHA"
    PAUSE = "BLPOP"
    """Waits for a second without a peek, which the server has refused."""
    POP = "BRPOP"
    """Receives as kombu does."""


class AtomicReceive(DeadLettering):
    """Atomic receive for a channel of kombu's Redis transport: a mixin, before the channel's class."""

    QoS = QoS
    Message = AtomicMessage

    deliveries_key = "unacked_deliveries"
    """Hash by delivery tag: how often a consumer has died with the message. Only redelivered messages have a field."""
    delivery_limit = 5
    """Number of losses after which a message becomes a dead letter; 0: never."""
    unacked_mutex_expire = 10
    """Expiry of the sweep's lock, in seconds. With kombu's five minutes nothing would be restored for so long after a
    sweeping process was killed. Two sweeps at once do no harm, because each message is restored in a transaction."""
    receive_limit = 100
    """Largest number of messages that one call takes, at most 1000. The server executes nothing else during the call."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._sent = Command.POP
        self._queue = ""
        """The queue that the last command named."""
        self._acks_in_flight: list[str] = []
        """Delivery tags that were sent with the script; it has not returned yet."""
        self._has_more = False
        self._skip_peek = False
        self._is_out_of_memory = False
        self._use_brpop = False
        self._no_ack_queues: set[str] = set()
        self._pool: Any = None
        super().__init__(*args, **kwargs)

    # Keys and clients

    @property
    def defers_acks(self) -> bool:
        """True if an event loop in this thread sends acknowledgements at the end of its turn, and the channel consumes."""
        transport = self.connection
        return (
            transport is not None
            and transport.loop_thread == threading.get_ident()
            and not self._closing
            and bool(self.active_queues)
        )

    def plain_client(self) -> "redis.Redis":
        """Return a client that does not add `global_keyprefix` to keys; the caller does."""
        return redis.Redis(connection_pool=self.pool)

    def server_time(self) -> float:
        """Return the server's time, in seconds since the epoch as from `time.time`."""
        seconds, microseconds = self.plain_client().time()
        return float(seconds) + microseconds / 1e6

    def run_script(self, script: str, keys: Sequence[str], arguments: Sequence[str]) -> Any:
        """Run a script and wait for its result. `keys` are the names of attributes that hold the keys."""
        named = [self.global_keyprefix + str(getattr(self, key)) for key in keys]
        return self.plain_client().register_script(script)(keys=named, args=list(arguments))

    # Losses and restoring

    def count_loss(self, tag: str) -> None:
        """Count the message `tag` as lost when the channel closes."""
        self.qos.count_loss(tag)

    def count_all_losses(self) -> None:
        """Count each message that the channel holds as lost when it closes: an error ends the program."""
        self.qos.counts_all_losses = True

    def _do_restore_message(
        self, payload: Any, exchange: Any, routing_key: Any, pipe: Any, leftmost: bool = False
    ) -> None:
        """Append the commands that requeue a message to `pipe`. kombu logs an error and drops the message; this raises."""
        headers = validate_envelope(payload).get("headers") or {}
        if not isinstance(headers, dict):
            raise MalformedEnvelopeError("no_headers")
        payload["headers"] = {**headers, "redelivered": True}
        payload["properties"]["delivery_info"]["redelivered"] = True
        for queue in self._lookup(exchange, routing_key):
            key = self._q_for_pri(queue, self._get_message_priority(payload, reverse=False))
            (pipe.lpush if leftmost else pipe.rpush)(key, dumps(payload))

    # Commands

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from `queue`; store if its consumer acknowledges."""
        (self._no_ack_queues.add if no_ack else self._no_ack_queues.discard)(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self.active_queues
        if self._use_brpop or len(queues) != 1:
            self._sent = Command.POP
            super()._brpop_start(timeout)
            return
        [self._queue] = queues
        self._requeue_acks_in_flight()
        seconds = (self.brpop_timeout if timeout is None else timeout) or 0
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        if self._skip_peek:
            self._skip_peek = False
            self._sent = Command.PAUSE
            connection.send_command("BLPOP", self.global_keyprefix + self.unacked_key + ":nobody", seconds or 1)
        elif self._has_more or self.qos.pending_acks:
            self._send_take()
        else:
            key = self._lists()[0]
            self._sent = Command.PEEK
            connection.send_command("BLMOVE", key, key, "RIGHT", "RIGHT", seconds)

    def _lists(self) -> list[str]:
        return [self.global_keyprefix + self._q_for_pri(self._queue, step) for step in self.priority_steps]

    def _send_take(self, command: str = "EVALSHA", script: str | None = None) -> None:
        self._sent = Command.TAKE
        no_ack = self._queue in self._no_ack_queues
        if no_ack:
            limit = 1  # as with kombu: a process that dies now loses the messages that it has taken
        else:
            estimate = self.qos.can_consume_max_estimate()
            limit = min(self.receive_limit, 1000) if estimate is None else min(estimate, self.receive_limit, 1000)
        while self.qos.pending_acks:
            self._acks_in_flight.append(self.qos.pending_acks.popleft())
        prefix = self.global_keyprefix
        keys = [prefix + key for key in (self.unacked_key, self.unacked_index_key, self.deliveries_key)]
        keys += [prefix + self.dead_letters, *self._lists()]
        self.client.connection.send_command(
            command, script or scripts.digest(scripts.TAKE), len(keys), *keys,
            limit, "1" if no_ack else "0", self._queue, self.dead_letters, LOSS_COUNTS_EXPIRE, *self._acks_in_flight,
        )  # fmt: skip

    def _requeue_acks_in_flight(self) -> None:
        """Send the acknowledgements of a call without a reply with the next one. A second acknowledgement does no harm."""
        self.qos.pending_acks.extendleft(reversed(self._acks_in_flight))
        self._acks_in_flight.clear()

    # Replies

    def _brpop_read(self, **options: Any) -> bool:
        if self._sent is Command.POP:
            return self._deliver_popped(**options)
        try:
            reply = self._read_reply(**options)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if reply is None:
            raise Empty
        return self._deliver_taken(*reply)

    def _deliver_popped(self, **options: Any) -> bool:
        """Deliver the message that BRPOP took, as kombu does. A malformed one has left its list; make it a dead letter."""
        try:
            popped = self._parse(Command.POP, **options)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not popped:
            raise Empty
        self._queue = queue = bytes_to_str(popped[0]).rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        try:
            message = set_origin(_read_entry(popped[1]), queue)
        except Exception as error:  # noqa: BLE001 - any error of the decoder means an unreadable message
            reason = str(error) if isinstance(error, MalformedEnvelopeError) else f"unreadable: {type(error).__name__}"
            self.dead_letter_malformed("", popped[1], reason, with_ack=False)
            return True
        try:
            self.connection._deliver(message, queue)  # noqa: SLF001 - as kombu's own channel does
        except MalformedEnvelopeError as error:
            self.dead_letter_malformed("", popped[1], str(error), with_ack=False)
        return True

    def _read_reply(self, **options: Any) -> Any:
        """Read the reply; after a peek, take. Returns the result of `TAKE`, or `None` if no message was taken."""
        try:
            if self._sent is not Command.TAKE:
                seen = self._parse(self._sent, **options)
                if self._sent is Command.PEEK:
                    self._is_out_of_memory = False
                # The peek waits for the list of the first priority only; the others are read when it times out.
                if seen is None and self._sent is Command.PEEK and len(self.priority_steps) == 1:
                    return None
                if not self.qos.can_consume() or self._queue not in self.active_queues:
                    return None
                self._send_take()
            try:
                reply = self._parse(Command.TAKE, **options)
            except redis.exceptions.NoScriptError:
                self._requeue_acks_in_flight()
                self._send_take("EVAL", scripts.TAKE)
                reply = self._parse(Command.TAKE, **options)
        except redis.ResponseError as error:
            return self._on_error_reply(error)
        self._acks_in_flight.clear()
        return reply

    def _parse(self, command: Command, **options: Any) -> Any:
        client = self.client
        try:
            return client.parse_response(client.connection, command.value, **options)
        except self.connection_errors:
            # The next turn reconnects.
            client.connection.disconnect()
            raise

    def _on_error_reply(self, error: "redis.ResponseError") -> Any:
        """Handle an error reply: no message was taken. Take without a peek, pause, fall back to BRPOP, or reconnect."""
        words = str(error)
        if is_failover_error(error):
            self.client.connection.disconnect()
            raise redis.ConnectionError(f"no longer the master: {words}") from error
        if isinstance(error, redis.exceptions.NoPermissionError) or "unknown command" in words.lower():
            log.warning("atomic_receive_refused", queue=self._queue, error=words[:200])
            self._use_brpop = True
            return None
        self._skip_peek = True
        if isinstance(error, redis.exceptions.OutOfMemoryError) and self._sent is Command.PEEK:
            # The server refuses a peek, which is a write. It allows the script, which needs no memory.
            if not self._is_out_of_memory:
                self._is_out_of_memory = True
                log.error("broker_out_of_memory", queue=self._queue, error=words[:200])
            return None
        log.error("atomic_receive_failed", queue=self._queue, error=words[:200])
        return None

    def _deliver_taken(self, taken: list[Any], malformed: list[Any], left: int) -> bool:
        """Deliver the messages that the script took."""
        self._has_more = left > 0
        for reason in malformed:
            log.error("message_quarantined", reason=bytes_to_str(reason), queue=self.dead_letters, state=self._queue)
        queue = self._queue
        with_ack = queue not in self._no_ack_queues
        waiting = deque((bytes_to_str(taken[at]), int(taken[at + 1]), taken[at + 2]) for at in range(0, len(taken), 3))
        if with_ack:
            self.qos.add_recorded(tag for tag, _, _ in waiting)
        try:
            while waiting:
                tag, losses, raw = waiting[0]
                if queue not in self.connection._callbacks:  # noqa: SLF001 - the consumer was cancelled in between
                    break
                waiting.popleft()
                self._deliver_one(queue, tag, losses, raw, with_ack=with_ack)
        finally:
            if waiting and with_ack:
                # If the server is unreachable, they are restored when the channel closes, or after the visibility timeout.
                with suppress(*self.connection_errors, redis.ResponseError):
                    self.qos.restore([tag for tag, _, _ in waiting])
        if not taken and not malformed:
            raise Empty
        return True

    def _deliver_one(self, queue: str, tag: str, losses: int, raw: bytes, *, with_ack: bool) -> None:
        try:
            # Not kombu's `loads`, which creates other types from objects with `__type__`: a dead letter is JSON again.
            message = json.loads(bytes_to_str(raw))
            if 0 < self.delivery_limit < losses:
                self.dead_letter_lost(queue, tag, losses, message)
                return
            set_origin(message, queue)["properties"]["delivery_tag"] = tag
        except Exception as error:  # noqa: BLE001 - any error of the decoder means an unreadable message
            self.dead_letter_malformed(tag, raw, f"unreadable: {type(error).__name__}", with_ack=with_ack)
            return
        try:
            self.connection._deliver(message, queue)  # noqa: SLF001 - as kombu's own channel does
        except MalformedEnvelopeError as error:
            self.dead_letter_malformed(tag, raw, str(error), with_ack=with_ack)

    # Closing

    def close(self) -> None:
        """Close the channel. Messages that a call in flight has taken return to their queue."""
        if self._in_poll and self._sent is not Command.POP:
            self._closing = True
            if self._sent is Command.TAKE:
                with suppress(*self.connection_errors):
                    reply = self._read_reply()
                    if reply is not None and self._queue not in self._no_ack_queues:
                        self.qos.add_recorded(bytes_to_str(tag) for tag in reply[0][::3])
            self._in_poll = None  # a peek takes no message: its reply is not needed
        if self._qos is not None:
            self._requeue_acks_in_flight()
            with suppress(*self.connection_errors, redis.ResponseError):
                self._qos.flush_acks()
        # Running work is acknowledged over this channel after it was closed, when there is no transport any more.
        kept = None if self.closed else self.pool
        super().close()
        self._pool = self._pool or kept
        if self._pool is not None:
            self._pool.disconnect()


def _read_entry(raw: bytes) -> dict[str, Any]:
    """Parse a list entry and check its form, as `TAKE` does. Raises `MalformedEnvelopeError`, or an error of the parser."""
    if len(raw) > scripts.MAX_ENTRY:
        raise MalformedEnvelopeError("oversize")
    return validate_envelope(json.loads(bytes_to_str(raw)))
