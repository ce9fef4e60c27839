# SPDX-License-Identifier: Apache-2.0
"""The worker's connection to its broker, which goes on showing life while the broker is away."""

from collections.abc import Callable
from typing import Any

from workers import heartbeat, redis_transport


class Connection(redis_transport.Connection):
    """Waits for the broker inside the main loop, which does not turn meanwhile: so it beats from here.

    A worker that waits is alive. Ending it would not bring the broker back, and would lose what it has in hand.
    """

    def ensure_connection(self, *arguments: Any, **options: Any) -> Any:
        """Connect, trying again as told; beat at every try, and at every second of waiting: then kombu calls `callback`."""
        theirs: Callable[[], object] | None = options.pop("callback", None)

        def at_every_second() -> None:
            heartbeat.beat()
            if theirs is not None:
                theirs()

        heartbeat.beat()  # a server that takes the connection and refuses what comes next keeps us here as well
        options["callback"] = at_every_second
        return super().ensure_connection(*arguments, **options)
