# SPDX-License-Identifier: Apache-2.0
"""Metrics of the broker: the length of each work queue, and unacknowledged messages."""

import time
from collections.abc import Iterable
from typing import Any

from kombu import Connection
from kombu.exceptions import ChannelError

from schemas import topology


def work_queues(branches: Iterable[str]) -> list[str]:
    """Return the queues that workers consume, and the dead-letter queue."""
    return [
        topology.RETURNS_QUEUE,
        topology.HOUSEKEEPING_QUEUE,
        topology.PRINT_ACTIONS_QUEUE,
        *map(topology.printing_queue, branches),
        topology.DEAD_LETTER_QUEUE,
    ]


def lengths(connection: Connection, queues: Iterable[str]) -> dict[str, int]:
    """Return the number of messages in each of `queues`; 0 for a queue that is not declared.

    Raises the transport's errors if the broker is unavailable.
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
                channel = connection.channel()  # RabbitMQ closes a channel on a failed passive declare
    finally:
        channel.close()
    return found


def unacknowledged(connection: Connection) -> tuple[int, float] | None:
    """Return the number of unacknowledged messages and the age of the oldest in seconds; `None` on RabbitMQ.

    Redis and Valkey have the delivery times in a sorted set, from which an acknowledged message is removed. An old entry
    belongs to a process that hangs, or to a worker that died a moment ago.
    """
    channel: Any = connection.default_channel
    if not hasattr(channel, "unacked_index_key"):
        return None
    number = channel.client.zcard(channel.unacked_index_key)
    oldest = channel.client.zrange(channel.unacked_index_key, 0, 0, withscores=True)
    return int(number), max(0.0, time.time() - oldest[0][1]) if oldest else 0.0
