# SPDX-License-Identifier: Apache-2.0
"""Atomic multi-receive: a message never leaves its list before the server has it recorded as unacknowledged.

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
from queue import Empty
from time import monotonic
from typing import Any, Final
from uuid import uuid4

import redis
import structlog
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from workers.redis_transport import scripts
from workers.redis_transport.qos import (
    DELIVERIES_KEPT,
    AtomicMessage,
    MalformedEnvelopeError,
    QoS,
    is_no_master,
    opened,
)

log = structlog.get_logger()

_Mixin: Any = object
"""Any to the type checker: kombu's stubs tell of public parts only."""

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
                log.error("broker_out_of_memory", queue=self._asked_for, error=words[:200])
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
        self.qos.dead_letter(tag, letter, "lost_too_often", task_id=task_id, count=losses)

    def _bury_malformed(self, tag: str, raw: bytes, reason: str, *, with_ack: bool) -> None:
        letter = self.wrapped(raw, reason)
        if with_ack:
            self.qos.dead_letter(tag, letter, reason)
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
