# SPDX-License-Identifier: Apache-2.0
"""A receiver of Celery's events that drops a message that is not an event, and receives the next one."""

from collections.abc import Callable
from typing import Any, Final

import structlog
from celery.events import EventReceiver

log = structlog.get_logger()

MAX_EVENT_BYTES: Final = 65_536
"""Bytes of an event or of a group of events. A longer message is dropped before it is decoded."""


class TolerantEventReceiver(EventReceiver):
    """Celery's receiver, which otherwise raises for a malformed message: then events are lost until it has reconnected."""

    queue: Any
    accept: Any
    _receive: Callable[[Any, Any], None]

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:  # noqa: N803 - Celery's name
        """Return the consumer of events. It checks the size of each message before it decodes it."""
        return [
            Consumer(
                queues=[self.queue],
                on_message=self.on_message,
                on_decode_error=self.on_decode_error,
                no_ack=True,
                accept=self.accept,
            )
        ]

    def event_from_message(self, body: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """Return type and fields of an event, without Celery's correction of its time for the worker's time zone.

        The time is a Unix time, which is the same in all zones: the correction would shift it by the difference of the
        zones, and Celery would log a drift of the worker's clock.
        """
        body.pop("utcoffset", None)
        return super().event_from_message(body, *arguments, **options)

    def on_message(self, message: Any) -> None:
        """Process a message of one event or several."""
        if len(message.body) > MAX_EVENT_BYTES:
            return
        try:
            self._receive(message.decode(), message)
        except Exception as error:  # noqa: BLE001 - any error of the decoder, or of a value in the event
            self.on_decode_error(message, error)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Drop a message that kombu cannot decompress or decode, or that is not an event."""
        log.debug("event_not_read", error=type(exc).__name__)
