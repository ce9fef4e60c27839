# SPDX-License-Identifier: Apache-2.0
"""Monitoring events of the worker, for example for Flower. Their delivery never blocks the worker.

Celery publishes them from the event loop in which the worker does all its work. It retries a heartbeat until the broker is
back, and on RabbitMQ each message waits for its publisher confirm: a connection that is lost without notice blocks the
worker for ever. Here an event that cannot be published at once is buffered, and published over the next connection.
"""

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from celery.app.events import Events as CeleryEvents
from celery.events import EventDispatcher
from celery.worker.consumer import Consumer as CeleryConsumer

from workers.broker_options import DECLARE_TIMEOUT_SECONDS, RESPONSE_TIMEOUT_SECONDS, with_timeouts

FLUSH_SECONDS: Final = 0.05
"""How long monitoring events are buffered; then they are sent as one message. Each contains its own time."""


class Events(CeleryEvents):
    """Celery's factory of event dispatchers, for `Dispatcher`."""

    dispatcher_cls = "workers.runtime.event_dispatcher:Dispatcher"


class Dispatcher(EventDispatcher):
    """Publishes each event once; failed events are buffered until the next connection."""

    def _publish(self, event: Any, producer: Any, routing_key: str, **_: Any) -> None:
        super()._publish(event, producer, routing_key)  # type: ignore[misc]  # missing in its stubs


class NonBlockingConsumer(CeleryConsumer):
    """A consumer that buffers monitoring events, and whose connections have timeouts."""

    hub: Any
    task_consumer: Any
    connection_errors: tuple[type[Exception], ...]
    _flush_events: Callable[[], None]
    _next_flush = 0.0

    def on_send_event_buffered(self) -> None:  # type: ignore[override]  # its stubs declare an unused return value
        """Schedule a flush, after each monitoring event. Celery flushes in each turn of its loop: mostly one event."""
        now = monotonic()
        # A time instead of a flag: the loop discards its timers when it loses the broker.
        if self.hub and now >= self._next_flush:
            self._next_flush = now + FLUSH_SECONDS
            self.hub.call_later(FLUSH_SECONDS, self._flush_events)

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """Return the connection for messages and for replies to remote control."""
        return self.ensure_connected(
            with_timeouts(self.app.connection_for_read(heartbeat=heartbeat), DECLARE_TIMEOUT_SECONDS)
        )

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """Return the connection for monitoring events."""
        connection = self.app.connection_for_write(url=url, heartbeat=heartbeat)
        return self.ensure_connected(with_timeouts(connection, RESPONSE_TIMEOUT_SECONDS))

    def stop(self) -> None:
        """Stop the consumer. A RabbitMQ that has vanished without notice costs one timeout, not one for each step."""
        if self.task_consumer and self.connection and self.connection.transport.driver_type == "amqp":
            try:
                self.task_consumer.cancel()
            except self.connection_errors:
                self.connection.collect()
        super().stop()

    def shutdown(self) -> None:
        """Flush buffered events when the worker ends, after its running jobs have finished."""
        self._flush_events()
        super().shutdown()
