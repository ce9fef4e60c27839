# SPDX-License-Identifier: Apache-2.0
"""Declaration of the exchange to which stations publish, on RabbitMQ. Workers declare it, at each new connection.

```
bookdrop.events (headers) --- header x-death: bookdrop.events.refused (no binding)
        |
        `-- all else: bookdrop.events.checked (direct) -- returns --> queue returns
```

RabbitMQ writes the header `x-death` itself, when it dead-letters a message. Before 3.13 it trusts that of a sender: a
malformed one ends the process of the queue, for example when the message expires, and ten such messages stop the queue
until an administrator restarts it. So no message with that header reaches a queue with a dead-letter exchange.
"""

from typing import Any, Final

from schemas.topology import (
    CHECKED_EVENTS_EXCHANGE,
    EVENTS_EXCHANGE,
    REFUSED_EVENTS_EXCHANGE,
    RETURNS_QUEUE,
    queue_arguments,
)

REFUSED_HEADER: Final = "x-death"
"""Header that only RabbitMQ may write."""


def declare_events_exchange(channel: Any) -> None:
    """Declare the exchanges, the queue `returns` and the bindings between them on py-amqp's `channel`.

    A message that they cannot route returns to its sender, who keeps the event.

    Raises the channel's errors, for example `AccessRefused` for a user who may not create them, and `PreconditionFailed`
    for a server before 3.10, which has neither the argument `any-with-x` nor messages that expire in these queues.
    """
    channel.exchange_declare(CHECKED_EVENTS_EXCHANGE, "direct", durable=True, auto_delete=False)
    channel.exchange_declare(REFUSED_EVENTS_EXCHANGE, "fanout", durable=True, auto_delete=False)
    channel.queue_declare(
        RETURNS_QUEUE, durable=True, exclusive=False, auto_delete=False, arguments=queue_arguments(RETURNS_QUEUE)
    )
    channel.queue_bind(RETURNS_QUEUE, CHECKED_EVENTS_EXCHANGE, routing_key=RETURNS_QUEUE)
    channel.exchange_declare(
        EVENTS_EXCHANGE,
        "headers",
        durable=True,
        auto_delete=False,
        arguments={"alternate-exchange": CHECKED_EVENTS_EXCHANGE},
    )
    # A null matches a header of any value; without `with-x` the server ignores headers whose names begin with x-.
    channel.exchange_bind(
        REFUSED_EVENTS_EXCHANGE, EVENTS_EXCHANGE, arguments={"x-match": "any-with-x", REFUSED_HEADER: None}
    )
