# SPDX-License-Identifier: Apache-2.0
"""Declaration of the exchange to which stations publish, on RabbitMQ. Workers declare it, at each new connection."""

from typing import Any

from schemas.topology import EVENTS_EXCHANGE, RETURNS_QUEUE, queue_arguments


def declare_events_exchange(channel: Any) -> None:
    """Declare the exchange, the queue `returns` and the binding between them on py-amqp's `channel`.

    The exchange has no alternate exchange: a message that it cannot route returns to its sender, who keeps the event.

    Raises the channel's errors, for example `AccessRefused` for a user who may not create them.
    """
    channel.exchange_declare(EVENTS_EXCHANGE, "direct", durable=True, auto_delete=False)
    channel.queue_declare(
        RETURNS_QUEUE, durable=True, exclusive=False, auto_delete=False, arguments=queue_arguments(RETURNS_QUEUE)
    )
    channel.queue_bind(RETURNS_QUEUE, EVENTS_EXCHANGE, routing_key=RETURNS_QUEUE)
