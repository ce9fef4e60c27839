# SPDX-License-Identifier: Apache-2.0
"""A channel and transport for kombu in the place of its own, which receive atomically (`BOOKDROP_REDIS_TRANSPORT`).

They share queues, unacknowledged messages and their way back with stock workers. Why and how:
docs/explanation/atomic-receive.md; how a message is received: `workers/redis_transport/receive.py`.
"""

import threading
from importlib.metadata import version
from typing import Any, Final

import kombu
import redis
import structlog

from workers.redis_transport.kombu_compat import KOMBU_VERSION
from workers.redis_transport.qos import is_no_master, stock
from workers.redis_transport.receive import OPTIONS, AtomicReceive

log = structlog.get_logger()


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
