# SPDX-License-Identifier: Apache-2.0
"""Every queue as the wire contract declares it, whether named in a setting or on a command line with `-Q`."""

from collections.abc import Iterable
from typing import Any

from celery.app.amqp import AMQP, Queues
from kombu import Connection, Exchange, Queue

from schemas.topology import queue_arguments
from workers import redis_transport


def declared(name: str) -> Queue:
    """Queue `name` on the anonymous exchange, with the arguments that everybody gives."""
    return Queue(name, Exchange(""), routing_key=name, durable=True, queue_arguments=queue_arguments(name))


class DeclaredQueues(Queues):
    """Celery's table of queues, which makes missing ones by the contract."""

    def new_missing(self, name: str) -> Queue:
        """A queue that no setting lists, such as `printing.main` after `-Q`."""
        return declared(name)


class DeclaredAMQP(AMQP):
    """Celery's AMQP interface with our table of queues, and with our transport where it is asked for."""

    Connection = redis_transport.Connection
    queues_cls = DeclaredQueues


def waiting(connection: Connection, queues: Iterable[str]) -> dict[str, int]:
    """How many messages wait in each of the queues; a queue that nobody has declared yet has none.

    Raises whatever the transport raises when the broker is away.
    """
    found = {}
    for name in queues:
        channel: Any = connection.channel()  # one for each: RabbitMQ closes it at a queue that is not there
        try:
            found[name] = channel.queue_declare(queue=name, passive=True).message_count
        except connection.channel_errors:
            found[name] = 0
        finally:
            channel.close()
    return found
