# SPDX-License-Identifier: Apache-2.0
"""What the broker tells Prometheus: how much waits in each work queue."""

import time
from collections.abc import Iterable
from typing import Any

from kombu import Connection
from kombu.exceptions import ChannelError

from schemas import topology


def work_queues(branches: Iterable[str]) -> list[str]:
    """All queues that workers take from, and the one of dead letters."""
    return [
        topology.RETURNS_QUEUE,
        topology.HOUSEKEEPING_QUEUE,
        topology.PRINT_ACTIONS_QUEUE,
        *map(topology.printing_queue, branches),
        topology.DEAD_LETTER_QUEUE,
    ]


def lengths(connection: Connection, queues: Iterable[str]) -> dict[str, int]:
    """How many messages wait in each of `queues`; a queue that nobody has declared has none.

    Raises whatever the transport raises when the broker is away.
    """
    found: dict[str, int] = {}
    channel: Any = connection.channel()
    try:
        for queue in queues:
            try:
                found[queue] = channel.queue_declare(queue, passive=True).message_count
            except ChannelError:
                found[queue] = 0
                channel.close()
                channel = connection.channel()  # on RabbitMQ the question closed the old one
    finally:
        channel.close()
    return found


def unacknowledged(connection: Connection) -> tuple[int, float] | None:
    """How many messages workers hold, and for how long the oldest, in seconds; `None` where the broker does not say.

    On Redis and Valkey their times stand in a sorted set. What is done leaves it; what lies there long, a process has
    that hangs, or a worker that died a moment ago.
    """
    channel: Any = connection.default_channel
    if not hasattr(channel, "unacked_index_key"):
        return None
    number = channel.client.zcard(channel.unacked_index_key)
    oldest = channel.client.zrange(channel.unacked_index_key, 0, 0, withscores=True)
    return int(number), max(0.0, time.time() - oldest[0][1]) if oldest else 0.0
