# SPDX-License-Identifier: Apache-2.0
"""Atomic multi-receive on Redis: a message never leaves its list before the server has it recorded as unacknowledged.

A channel and transport for kombu in the place of its own (`BOOKDROP_REDIS_TRANSPORT`). They share queues, unacknowledged
messages and their way back with stock workers. Why and how: docs/explanation/atomic-receive.md.

Wait with a blocking peek, `BLMOVE q q RIGHT RIGHT`: it moves the oldest message to where it is. Then one script
(`redis_scripts.TAKE`) acknowledges what is done, and takes as many messages as the prefetch count allows. All of it goes
over the connection that kombu already polls. A channel that consumes several queues, or whose server knows no such
command or allows it not, receives as kombu does; only what is no message, or is rejected, is put aside there as well.
"""

import enum
import json
import threading
from base64 import b64encode
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from queue import Empty
from time import monotonic
from typing import Any, Final
from uuid import uuid4

import kombu
import redis
import structlog
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from workers import redis_scripts as scripts
from workers.redis_acknowledgement import (
    DELIVERIES_KEPT,
    AtomicMessage,
    MalformedEnvelopeError,
    QoS,
    is_no_master,
    opened,
    stock,
)

log = structlog.get_logger()

_Mixin: Any = object
"""Any to the type checker: kombu's stubs tell of public parts only."""

KOMBU_VERSION: Final = "5.7.0"
"""The one version whose private parts are known here. With any other, the stock transport is used."""

RELIED_ON: Final = {
    "kombu.transport.redis:QoS": {
        "append": "35c655f6ecc6", "restore_unacked": "8954efef014d", "ack": "1bc15a4ddf54", "reject": "747a02434344",
        "pipe_or_acquire": "ad7f549d96c8", "restore_visible": "d4a4a40a3eaf", "restore_by_tag": "58e161d81b6f",
    },
    "kombu.transport.redis:MultiChannelPoller": {
        "on_poll_start": "414f76caaa67", "on_readable": "c0d99f241607", "_register_BRPOP": "85724582464a",
        "_pause_brpop": "58133695f1a9", "_update_brpop_polling": "de7b4600acf5", "get": "e0f960e0c328",
        "maybe_check_brpop_health": "0dc592e46353", "maybe_restore_messages": "6c267815d521",
    },
    "kombu.transport.redis:Channel": {
        "__init__": "f189bdebe243", "_brpop_start": "06723d707ddf", "_brpop_read": "c42518699709",
        "_do_restore_message": "8b430df94e45", "_on_connection_disconnect": "9eab3394f78b",
        "_disconnect_pools": "db50da048a22", "_flush_brpop_reauth": "bb4930b4fd3c", "_q_for_pri": "f3997660680d",
        "active_queues": "a7ca9dfbc634", "basic_consume": "34e0da85e689", "close": "101e9b9cdad4",
        "conn_or_acquire": "25883caca6c4", "pool": "5a99b1533403", "_put": "1c0cf9749576",
    },
    "kombu.transport.redis:SentinelChannel": {
        "_get_pool": "6abc6e5c81e1", "_sentinel_managed_pool": "bde54a2d6e93",
    },
    "kombu.transport.redis:Transport": {
        "__init__": "4fc30e8fa54d", "register_with_event_loop": "4b835642e4a9",
    },
    "kombu.transport.redis:GlobalKeyPrefixMixin": {
        "parse_response": "c279fe1be669", "_prefix_args": "53c96d987a84",
    },
    "kombu.transport.virtual.base:QoS": {
        "__init__": "86388d33d7d6", "append": "b388f0cd6485", "ack": "0714292b916f", "can_consume": "787f80092f8d",
        "can_consume_max_estimate": "936d3958266c", "_flush": "33e6483a6075", "restore_unacked_once": "c81f3d0fb29b",
    },
    "kombu.transport.virtual.base:Channel": {
        "basic_consume": "0fec96269493", "close": "26368e1cadfc",
    },
    "kombu.transport.virtual.base:Message": {
        "__init__": "c90d08ccfa2e",
    },
    "kombu.transport.virtual.base:Transport": {
        "_deliver": "799e242f3ec5", "_reject_inbound_message": "0fd42f24d40a",
    },
    "kombu.connection:Connection": {
        "get_transport_cls": "6c439e6b9759", "create_transport": "90c0dafd8ca3",
    },
}  # fmt: skip
"""What is overridden, called, or taken for granted: class, methods, and the beginning of the SHA-256 of each source as
it was read. A test compares them and names each one that has changed: read it anew, then write its new digest here."""

OPTIONS: Final = ("deliveries_key", "delivery_limit", "receive_limit")
"""Transport options beside those of kombu; what they mean stands at `AtomicReceive`."""


class Asked(enum.Enum):
    """What the polled connection was last asked for."""

    PEEK = "BLMOVE"
    TAKE = "EVALSHA"
    PAUSE = "BLPOP"
    """A second without a peek: the server refused it."""
    POP = "BRPOP"
    """As kombu does."""


class AtomicReceive(_Mixin):
    """What a channel of kombu's Redis transport does otherwise: put it before the channel's class."""

    QoS = QoS
    Message = AtomicMessage

    deliveries_key = "unacked_deliveries"
    """Hash of how often a message was lost by whoever held it, by tag. Only messages that came again stand there."""
    delivery_limit = 5
    """After how many losses a message goes to the dead letters; 0: never."""
    unacked_mutex_expire = 10
    """For how long one sweep keeps others away. Of a sweeper that was killed that would be kombu's five minutes, in which
    nothing comes back; to sweep twice at once does no harm, for each message is given back in a transaction."""
    receive_limit = 100
    """How many messages one call takes at most, 1000 at the utmost: it is the time for which the server does nothing else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._asked = Asked.POP
        self._asked_for = ""
        self._riding: list[str] = []
        self._more = False
        self._pause = False
        self._is_full = False
        self._as_stock = False
        self._unacknowledging: set[str] = set()
        self._pool: Any = None
        super().__init__(*args, **kwargs)

    # What is where

    @property
    def dead_letters(self) -> str:
        """The queue for what cannot be delivered."""
        return self.deadletter_queue or "dead-letter"

    @property
    def turns(self) -> bool:
        """Whether an event loop will come by in this turn, in this thread, and this channel still receives with it."""
        transport = self.connection
        return (
            transport is not None
            and transport.loop_thread == threading.get_ident()
            and not self._closing
            and bool(self.active_queues)
        )

    def plain_client(self) -> "redis.Redis":
        """A client that leaves keys as they are: `global_keyprefix` is the caller's business."""
        return redis.Redis(connection_pool=self.pool)

    def server_time(self) -> float:
        """The server's clock, in seconds as `time.time` counts them."""
        seconds, microseconds = self.plain_client().time()
        return float(seconds) + microseconds / 1e6

    def run_script(self, script: str, keys: Sequence[str], arguments: Sequence[str]) -> Any:
        """Run one of our scripts at once. `keys` are names of attributes that hold them."""
        named = [self.global_keyprefix + str(getattr(self, key)) for key in keys]
        return self.plain_client().register_script(script)(keys=named, args=list(arguments))

    def wrapped(self, raw: bytes | str, reason: str) -> dict[str, Any]:
        """A dead letter with `raw` as its body, as `TAKE` makes them."""
        content = raw.encode() if isinstance(raw, str) else raw
        return {
            "body": b64encode(content).decode(),
            "content-type": "application/octet-stream",
            "content-encoding": "binary",
            "headers": {"x-quarantine-reason": reason, "x-quarantine-queue": self._asked_for},
            "properties": {
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
                "delivery_mode": 2,
                "priority": 0,
                "delivery_info": {"exchange": "", "routing_key": self.dead_letters},
            },
        }

    # Asking

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from `queue`."""
        (self._unacknowledging.add if no_ack else self._unacknowledging.discard)(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self.active_queues
        if self._as_stock or len(queues) != 1:
            self._asked = Asked.POP
            super()._brpop_start(timeout)
            return
        [self._asked_for] = queues
        self._keep_riding_acks()
        seconds = (self.brpop_timeout if timeout is None else timeout) or 0
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        if self._pause:
            self._pause = False
            self._asked = Asked.PAUSE
            connection.send_command("BLPOP", self.global_keyprefix + self.unacked_key + ":nobody", seconds or 1)
        elif self._more or self.qos.acked:
            self._send_take()
        else:
            key = self._lists()[0]
            self._asked = Asked.PEEK
            connection.send_command("BLMOVE", key, key, "RIGHT", "RIGHT", seconds)

    def _lists(self) -> list[str]:
        return [self.global_keyprefix + self._q_for_pri(self._asked_for, step) for step in self.priority_steps]

    def _send_take(self, command: str = "EVALSHA", script: str | None = None) -> None:
        self._asked = Asked.TAKE
        no_ack = self._asked_for in self._unacknowledging
        if no_ack:
            limit = 1  # as with kombu: what is taken is nobody's if this process dies now
        else:
            estimate = self.qos.can_consume_max_estimate()
            limit = min(self.receive_limit, 1000) if estimate is None else min(estimate, self.receive_limit, 1000)
        while self.qos.acked:
            self._riding.append(self.qos.acked.popleft())
        prefix = self.global_keyprefix
        keys = [prefix + key for key in (self.unacked_key, self.unacked_index_key, self.deliveries_key)]
        keys += [prefix + self.dead_letters, *self._lists()]
        self.client.connection.send_command(
            command, script or scripts.digest(scripts.TAKE), len(keys), *keys,
            limit, "1" if no_ack else "0", self._asked_for, self.dead_letters, DELIVERIES_KEPT, *self._riding,
        )  # fmt: skip

    def _keep_riding_acks(self) -> None:
        """What rode with a call that got no answer goes with the next one. To acknowledge twice does no harm."""
        self.qos.acked.extendleft(reversed(self._riding))
        self._riding.clear()

    # Answers

    def _brpop_read(self, **options: Any) -> bool:
        if self._asked is Asked.POP:
            return self._popped(**options)
        try:
            reply = self._answer(**options)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if reply is None:
            raise Empty
        return self._hand_out(*reply)

    def _popped(self, **options: Any) -> bool:
        """Deliver what BRPOP took, as kombu does. What is no message left its list already, and is put aside."""
        try:
            popped = self._parse(Asked.POP, **options)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not popped:
            raise Empty
        self._asked_for = queue = bytes_to_str(popped[0]).rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        try:
            message = opened(loads(bytes_to_str(popped[1])))
        except Exception as error:  # noqa: BLE001 - whatever reading it raises, it cannot be read
            reason = str(error) if isinstance(error, MalformedEnvelopeError) else f"unreadable: {type(error).__name__}"
            self._bury_malformed("", popped[1], reason, with_ack=False)
            return True
        try:
            self.connection._deliver(message, queue)  # noqa: SLF001 - as kombu's own channel does
        except MalformedEnvelopeError as error:
            self._bury_malformed("", popped[1], str(error), with_ack=False)
        return True

    def _answer(self, **options: Any) -> Any:
        """What was taken, or None."""
        try:
            if self._asked is not Asked.TAKE:
                seen = self._parse(self._asked, **options)
                if self._asked is Asked.PEEK:
                    self._is_full = False
                # Only the first priority wakes us; the others are looked at when the peek's time is over.
                if seen is None and self._asked is Asked.PEEK and len(self.priority_steps) == 1:
                    return None
                if not self.qos.can_consume() or self._asked_for not in self.active_queues:
                    return None
                self._send_take()
            try:
                reply = self._parse(Asked.TAKE, **options)
            except redis.exceptions.NoScriptError:
                self._keep_riding_acks()
                self._send_take("EVAL", scripts.TAKE)
                reply = self._parse(Asked.TAKE, **options)
        except redis.ResponseError as error:
            return self._refused(error)
        self._riding.clear()
        return reply

    def _parse(self, asked: Asked, **options: Any) -> Any:
        client = self.client
        try:
            return client.parse_response(client.connection, asked.value, **options)
        except self.connection_errors:
            # The next turn connects anew.
            client.connection.disconnect()
            raise

    def _refused(self, error: "redis.ResponseError") -> Any:
        """The server says no. Nothing was taken: take without waiting, wait, do as kombu does, or connect anew."""
        words = str(error)
        if is_no_master(error):
            self.client.connection.disconnect()
            raise redis.ConnectionError(f"no master any more: {words}") from error
        if isinstance(error, redis.exceptions.NoPermissionError) or "unknown command" in words.lower():
            log.warning("atomic_receive_refused", queue=self._asked_for, error=words[:200])
            self._as_stock = True
            return None
        self._pause = True
        if isinstance(error, redis.exceptions.OutOfMemoryError) and self._asked is Asked.PEEK:
            # No write of a peek is allowed; a take is, for it needs no memory.
            if not self._is_full:
                self._is_full = True
                log.error("broker_is_full", queue=self._asked_for, error=words[:200])
            return None
        log.error("atomic_receive_failed", queue=self._asked_for, error=words[:200])
        return None

    def _hand_out(self, taken: list[Any], malformed: list[Any], left: int) -> bool:
        """Deliver what was taken."""
        self._more = left > 0
        for reason in malformed:
            log.error(
                "message_quarantined", reason=bytes_to_str(reason), queue=self.dead_letters, state=self._asked_for
            )
        queue = self._asked_for
        with_ack = queue not in self._unacknowledging
        waiting = deque((bytes_to_str(taken[at]), int(taken[at + 1]), taken[at + 2]) for at in range(0, len(taken), 3))
        if with_ack:
            self.qos.expect(tag for tag, _, _ in waiting)
        try:
            while waiting:
                tag, losses, raw = waiting[0]
                if queue not in self.connection._callbacks:  # noqa: SLF001 - the consumer was cancelled meanwhile
                    break
                waiting.popleft()
                self._deliver_one(queue, tag, losses, raw, with_ack=with_ack)
        finally:
            if waiting and with_ack:
                # If it cannot be done now: at the channel's end, or when the visibility timeout is over.
                with suppress(*self.connection_errors, redis.ResponseError):
                    self.qos.give_back([tag for tag, _, _ in waiting])
        if not taken and not malformed:
            raise Empty
        return True

    def _deliver_one(self, queue: str, tag: str, losses: int, raw: bytes, *, with_ack: bool) -> None:
        try:
            message = loads(bytes_to_str(raw))
            if 0 < self.delivery_limit < losses:
                self._bury_lost(queue, tag, losses, message)
                return
            message["properties"]["delivery_tag"] = tag
        except Exception as error:  # noqa: BLE001 - whatever reading it raises, it cannot be read
            self._bury_malformed(tag, raw, f"unreadable: {type(error).__name__}", with_ack=with_ack)
            return
        try:
            self.connection._deliver(message, queue)  # noqa: SLF001 - as kombu's own channel does
        except MalformedEnvelopeError as error:
            self._bury_malformed(tag, raw, str(error), with_ack=with_ack)

    def marked(self, message: dict[str, Any], reason: str, queue: str, **said: Any) -> dict[str, Any]:
        """A dead letter of `message` as it is, with the reason in its headers."""
        return {
            **message,
            "headers": {
                **(message.get("headers") or {}),
                "x-quarantine-reason": reason,
                "x-quarantine-queue": queue,
                **said,
            },
            "properties": {
                **message["properties"],
                "delivery_info": {"exchange": "", "routing_key": self.dead_letters},
            },
        }

    def _bury_lost(self, queue: str, tag: str, losses: int, message: dict[str, Any]) -> None:
        letter = self.marked(message, "lost_too_often", queue, **{"x-quarantine-losses": losses})
        task_id = (message.get("headers") or {}).get("id")
        self.qos.bury(tag, letter, "lost_too_often", task_id=task_id, count=losses)

    def _bury_malformed(self, tag: str, raw: bytes, reason: str, *, with_ack: bool) -> None:
        letter = self.wrapped(raw, reason)
        if with_ack:
            self.qos.bury(tag, letter, reason)
            return
        self.plain_client().lpush(self.global_keyprefix + self.dead_letters, json.dumps(letter))
        log.error("message_quarantined", reason=reason, queue=self.dead_letters)

    # The end

    def close(self) -> None:
        """Let go of everything. What a call on its way has taken goes back."""
        if self._in_poll and self._asked is not Asked.POP:
            self._closing = True
            if self._asked is Asked.TAKE:
                with suppress(*self.connection_errors):
                    reply = self._answer()
                    if reply is not None and self._asked_for not in self._unacknowledging:
                        self.qos.expect(bytes_to_str(tag) for tag in reply[0][::3])
            self._in_poll = None  # a peek has taken nothing: its answer is not waited for
        if self._qos is not None:
            self._keep_riding_acks()
            with suppress(*self.connection_errors, redis.ResponseError):
                self._qos.flush_acks()
        # Work that goes on is acknowledged over this channel when it is long closed, and has no transport to ask then.
        kept = None if self.closed else self.pool
        super().close()
        self._pool = self._pool or kept
        if self._pool is not None:
            self._pool.disconnect()


class Poller(stock.MultiChannelPoller):
    """kombu's poller, which before each wait lets the acknowledgements go that nothing took along."""

    def on_poll_start(self) -> None:
        """Ask for what can be taken, then flush."""
        super().on_poll_start()
        for channel in self._channels:
            if channel._qos is not None and channel._qos.acked:  # noqa: SLF001 - `qos` would make one
                self._flush(channel)

    @staticmethod
    def _flush(channel: Any) -> None:
        try:
            channel.qos.flush_acks()
        except redis.ResponseError as error:
            if is_no_master(error):
                raise redis.ConnectionError(f"no master any more: {error}") from error
            # They go with the next call that is allowed.
            log.error("acknowledgement_refused", count=len(channel.qos.acked), error=str(error)[:200])  # noqa: TRY400


class Channel(AtomicReceive, stock.Channel):
    """A channel to one server."""

    from_transport_options = (*stock.Channel.from_transport_options, *OPTIONS)


class SentinelChannel(AtomicReceive, stock.SentinelChannel):
    """A channel to the master that Sentinel names."""

    from_transport_options = (*stock.SentinelChannel.from_transport_options, *OPTIONS)


class Transport(stock.Transport):
    """`redis://`, `rediss://` and `redis+socket://`."""

    Channel = Channel
    loop_thread: int | None = None
    """The thread whose event loop serves this transport."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Be served by `loop`."""
        super().register_with_event_loop(connection, loop)
        self.loop_thread = threading.get_ident()


class SentinelTransport(Transport):
    """`sentinel://`."""

    default_port = stock.SentinelTransport.default_port
    Channel = SentinelChannel


_OURS: Final = {stock.Transport: Transport, stock.SentinelTransport: SentinelTransport}


class Connection(kombu.Connection):
    """A connection whose option `atomic_receive` says whether messages are received atomically, where it can be done.

    Its URL, its `transport_cls` and what it shows of itself are those of the stock transport: also after a failover.
    """

    def get_transport_cls(self) -> Any:
        """The transport's class: ours in the place of kombu's own for Redis."""
        chosen = super().get_transport_cls()
        if not (self.transport_options or {}).get("atomic_receive") or chosen not in _OURS:
            return chosen
        if version("kombu") != KOMBU_VERSION:
            log.warning("stock_transport_used", reason=f"made for kombu {KOMBU_VERSION}, not {version('kombu')}")
            return chosen
        return _OURS[chosen]
