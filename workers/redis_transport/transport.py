# SPDX-License-Identifier: Apache-2.0
"""Channels, transports and the connection that replace kombu's own for Redis and receive atomically.

They share queues and unacknowledged messages with kombu's transport, and restore each other's messages. README.md has
the contract, docs/explanation/atomic-receive.md the reasons; `receive.py` receives the messages.
"""

import threading
from importlib.metadata import version
from typing import Any, Final

import kombu
import redis
import structlog

from workers.redis_transport.kombu_compat import KOMBU_VERSION
from workers.redis_transport.qos import is_failover_error, kombu_redis
from workers.redis_transport.receive import OPTIONS, AtomicReceive

log = structlog.get_logger()


class Poller(kombu_redis.MultiChannelPoller):
    """kombu's poller, which flushes pending acknowledgements before each wait."""

    def on_poll_start(self) -> None:
        """Send the next command of each channel, then the acknowledgements that no command carried."""
        super().on_poll_start()
        for channel in self._channels:
            if channel._qos is not None and channel._qos.pending_acks:  # noqa: SLF001 - the property `qos` would create one
                self._flush(channel)

    @staticmethod
    def _flush(channel: Any) -> None:
        try:
            channel.qos.flush_acks()
        except redis.ResponseError as error:
            if is_failover_error(error):
                raise redis.ConnectionError(f"no longer the master: {error}") from error
            # They stay pending, and are sent with the next call that the server allows.
            log.error("acknowledgement_refused", count=len(channel.qos.pending_acks), error=str(error)[:200])  # noqa: TRY400


class Channel(AtomicReceive, kombu_redis.Channel):
    """A channel to one server."""

    from_transport_options = (*kombu_redis.Channel.from_transport_options, *OPTIONS)


class SentinelChannel(AtomicReceive, kombu_redis.SentinelChannel):
    """A channel to the master that Sentinel names."""

    from_transport_options = (*kombu_redis.SentinelChannel.from_transport_options, *OPTIONS)


class Transport(kombu_redis.Transport):
    """`redis://`, `rediss://` and `redis+socket://`."""

    Channel = Channel
    loop_thread: int | None = None
    """Identifier of the thread whose event loop serves this transport."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Register with `loop`, and store its thread."""
        super().register_with_event_loop(connection, loop)
        self.loop_thread = threading.get_ident()


class SentinelTransport(Transport):
    """`sentinel://`."""

    default_port = kombu_redis.SentinelTransport.default_port
    Channel = SentinelChannel


_REPLACEMENTS: Final = {kombu_redis.Transport: Transport, kombu_redis.SentinelTransport: SentinelTransport}


class Connection(kombu.Connection):
    """kombu's connection. With the transport option `atomic_receive` it receives atomically on Redis.

    URL, `transport_cls` and `info()` are those of kombu's transport, also after a failover.
    """

    def get_transport_cls(self) -> Any:
        """Return the transport class: the atomic one in place of kombu's for Redis."""
        chosen = super().get_transport_cls()
        if not (self.transport_options or {}).get("atomic_receive") or chosen not in _REPLACEMENTS:
            return chosen
        if version("kombu") != KOMBU_VERSION:
            log.warning("kombu_transport_used", reason=f"made for kombu {KOMBU_VERSION}, not {version('kombu')}")
            return chosen
        return _REPLACEMENTS[chosen]
