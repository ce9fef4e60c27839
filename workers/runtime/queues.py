# SPDX-License-Identifier: Apache-2.0
"""Queue declarations with the arguments of the wire contract, also for queues named on a command line with `-Q`."""

from typing import Any

from celery import bootsteps
from celery.app.amqp import AMQP, Queues
from kombu import Exchange, Queue

from schemas.topology import DEAD_LETTER_QUEUE, queue_arguments
from workers.runtime import connection


def queue_declaration(name: str) -> Queue:
    """Return queue `name` on the anonymous exchange, with the arguments that stations and workers declare."""
    return Queue(name, Exchange(""), routing_key=name, durable=True, queue_arguments=queue_arguments(name))


class DeclaredQueues(Queues):
    """Celery's table of queues. It creates missing ones with the arguments of the contract."""

    def new_missing(self, name: str) -> Queue:
        """Return a queue that no setting lists, for example `printing.main` after `-Q`."""
        return queue_declaration(name)


class DeclaredAMQP(AMQP):
    """Celery's AMQP interface with `DeclaredQueues` and the worker's connection."""

    Connection = connection.Connection
    queues_cls = DeclaredQueues


class DeadLetters(bootsteps.StartStopStep):
    """A bootstep of the consumer: declares the dead-letter queue at each new connection, before any message goes there.

    RabbitMQ drops a dead letter whose queue is not declared.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, parent: Any) -> None:
        """Declare the dead-letter queue."""
        queue_declaration(DEAD_LETTER_QUEUE).bind(parent.connection.default_channel).queue_declare()
