# SPDX-License-Identifier: Apache-2.0
"""What a worker tells whoever watches, such as Flower; it never keeps the worker from its work.

Celery publishes from the loop in which a worker does everything. A heartbeat is tried again until the broker is back, and
on RabbitMQ each message waits for its receipt: with a connection that was lost without a word the worker stands still for
ever. Here what cannot be told at once is kept, and told over the next connection.
"""

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from celery.app.events import Events as CeleryEvents
from celery.events import EventDispatcher
from celery.worker.consumer import Consumer as CeleryConsumer

from workers.broker_options import DECLARE_TIMEOUT_SECONDS, RESPONSE_TIMEOUT_SECONDS, with_timeouts

GATHERED_SECONDS: Final = 0.05
"""For so long monitoring events gather, and go to the broker as one message. Each has its own time in it."""


class Events(CeleryEvents):
    """Celery's way to our dispatcher."""

    dispatcher_cls = "workers.runtime.event_dispatcher:Dispatcher"


class Dispatcher(EventDispatcher):
    """Tells once; what fails is kept until there is another connection."""

    def _publish(self, event: Any, producer: Any, routing_key: str, **_: Any) -> None:
        super()._publish(event, producer, routing_key)  # type: ignore[misc]  # missing in its stubs


class NonBlockingConsumer(CeleryConsumer):
    """A consumer whose monitoring events gather, and which no monitoring keeps waiting."""

    hub: Any
    task_consumer: Any
    connection_errors: tuple[type[Exception], ...]
    _flush_events: Callable[[], None]
    _events_go_at = 0.0

    def on_send_event_buffered(self) -> None:  # type: ignore[override]  # its stubs promise a callable nobody asks for
        """Called for each monitoring event. Celery sends what there is in every turn of its loop: mostly one event."""
        now = monotonic()
        # A time and no flag: the loop forgets its timers when it loses the broker.
        if self.hub and now >= self._events_go_at:
            self._events_go_at = now + GATHERED_SECONDS
            self.hub.call_later(GATHERED_SECONDS, self._flush_events)

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """Called for the connection on which messages come, and answers to remote control go."""
        return self.ensure_connected(
            with_timeouts(self.app.connection_for_read(heartbeat=heartbeat), DECLARE_TIMEOUT_SECONDS)
        )

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """Called for the connection on which monitoring events go."""
        connection = self.app.connection_for_write(url=url, heartbeat=heartbeat)
        return self.ensure_connected(with_timeouts(connection, RESPONSE_TIMEOUT_SECONDS))

    def stop(self) -> None:
        """Called when the worker is told to end: a RabbitMQ that is gone without a word is asked once, not at each step."""
        if self.task_consumer and self.connection and self.connection.transport.driver_type == "amqp":
            try:
                self.task_consumer.cancel()
            except self.connection_errors:
                self.connection.collect()
        super().stop()

    def shutdown(self) -> None:
        """Called when the worker ends and all it had in hand is done: what has gathered goes now."""
        self._flush_events()
        super().shutdown()
