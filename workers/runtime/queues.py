# SPDX-License-Identifier: Apache-2.0
"""Every queue as the wire contract declares it, whether named in a setting or on a command line with `-Q`."""

from typing import Any

from celery import bootsteps
from celery.app.amqp import AMQP, Queues
from kombu import Exchange, Queue

from schemas.topology import DEAD_LETTER_QUEUE, queue_arguments
from workers.runtime import connection


def queue_declaration(name: str) -> Queue:
    """Queue `name` on the anonymous exchange, with the arguments that everybody gives."""
    return Queue(name, Exchange(""), routing_key=name, durable=True, queue_arguments=queue_arguments(name))


class DeclaredQueues(Queues):
    """Celery's table of queues, which makes missing ones by the contract."""

    def new_missing(self, name: str) -> Queue:
        """A queue that no setting lists, such as `printing.main` after `-Q`."""
        return queue_declaration(name)


class DeclaredAMQP(AMQP):
    """Celery's AMQP interface with our table of queues, and with our transport where it is asked for."""

    Connection = connection.Connection
    queues_cls = DeclaredQueues


class DeadLetters(bootsteps.StartStopStep):
    """A step of the worker, at each new connection: the queue of dead letters is there before anything goes to it.

    RabbitMQ drops a dead letter whose queue nobody has declared.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, parent: Any) -> None:
        """Declare it."""
        queue_declaration(DEAD_LETTER_QUEUE).bind(parent.connection.default_channel).queue_declare()
