# SPDX-License-Identifier: Apache-2.0
"""The worker's connection to its broker; it emits heartbeats while it waits for an unavailable broker."""

from collections.abc import Callable
from typing import Any

from workers import redis_transport
from workers.supervision import heartbeat


class Connection(redis_transport.Connection):
    """Emits the worker's heartbeat from `ensure_connection`, because Celery waits there and its timers do not run.

    A waiting worker is alive. To kill it would not bring the broker back, and would interrupt its running jobs.
    """

    def ensure_connection(self, *arguments: Any, **options: Any) -> Any:
        """Connect, with retries. Emits a heartbeat at each attempt and in each second of a wait: kombu calls `callback`."""
        caller_callback: Callable[[], object] | None = options.pop("callback", None)

        def each_second() -> None:
            heartbeat.beat()
            if caller_callback is not None:
                caller_callback()

        heartbeat.beat()  # also for a server that accepts the connection and refuses the next command, again and again
        options["callback"] = each_second
        return super().ensure_connection(*arguments, **options)
