# SPDX-License-Identifier: Apache-2.0
"""What a worker tells whoever watches, such as Flower; it never keeps the worker from its work.

Celery publishes from the loop in which a worker does everything. A heartbeat is tried again until the broker is back, and
on RabbitMQ each message waits for its receipt: with a connection that was lost without a word the worker stands still for
ever. Here what cannot be told at once is kept, and told over the next connection.
"""

from typing import Any

from celery.app.events import Events as CeleryEvents
from celery.events import EventDispatcher
from kombu import Connection

from workers.transport import SECONDS_TO_ANSWER


class Events(CeleryEvents):
    """Celery's way to our dispatcher."""

    dispatcher_cls = "workers.monitoring:Dispatcher"


class Dispatcher(EventDispatcher):
    """Tells once; what fails is kept until there is another connection."""

    def _publish(self, event: Any, producer: Any, routing_key: str, **_: Any) -> None:
        super()._publish(event, producer, routing_key)  # type: ignore[misc]  # missing in its stubs


def without_receipts(connection: Connection) -> Connection:
    """`connection`, not opened yet, on which nothing that is published waits until RabbitMQ has it."""
    return _with(connection, confirm_publish=False)


def never_waiting(connection: Connection) -> Connection:
    """The same, with an end to every other wait as well."""
    return _with(
        connection, confirm_publish=False, read_timeout=SECONDS_TO_ANSWER, write_timeout=SECONDS_TO_ANSWER
    )  # fmt: skip


def _with(connection: Connection, **options: Any) -> Connection:
    if connection.transport.driver_type == "amqp":
        connection.transport_options = {**(connection.transport_options or {}), **options}
    return connection
