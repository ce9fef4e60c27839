# SPDX-License-Identifier: Apache-2.0
"""Queue declarations with the arguments of the wire contract, also for queues named on a command line with `-Q`."""

from typing import Any

import structlog
from celery import bootsteps
from celery.app.amqp import AMQP, Queues
from kombu import Exchange, Queue

from schemas.events_exchange import declare_events_exchange
from schemas.topology import DEAD_LETTER_QUEUE, RETURNS_QUEUE, queue_arguments
from workers.runtime import connection
from workers.settings import WorkerSettings

log = structlog.get_logger()


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


class EventsExchange(bootsteps.StartStopStep):
    """A bootstep of the consumer: declares the exchange of the stations at each new connection to RabbitMQ.

    Print workers do not: they may not create the queue `returns`. With the permissions of an earlier release no worker may
    create the exchange; stations then use the anonymous exchange, as before.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def include_if(self, parent: Any) -> bool:
        """Return True on RabbitMQ, for every role except `printing`."""
        return bool(parent.app.connection_for_write().transport.driver_type == "amqp") and (
            WorkerSettings.load().role != "printing"
        )

    def start(self, parent: Any) -> None:
        """Declare the exchange over a separate channel, because RabbitMQ closes the channel of a refused declaration."""
        with parent.connection.channel() as channel:
            try:
                declare_events_exchange(channel)
            except parent.connection.channel_errors as error:
                log.warning("events_exchange_not_declared", queue=RETURNS_QUEUE, error=str(error)[:200])
