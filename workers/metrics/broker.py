# SPDX-License-Identifier: Apache-2.0
"""What the broker tells Prometheus: how much waits in each work queue."""

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
