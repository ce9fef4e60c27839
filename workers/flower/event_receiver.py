# SPDX-License-Identifier: Apache-2.0
"""Receive task events from the broker for as long as Flower runs."""

import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from celery import Celery

from workers.runtime.event_receiver import TolerantEventReceiver

log = structlog.get_logger()

PAUSE: Final = 2.0
"""Time between two connections, in seconds."""


def receive_events(app: Celery, handle: Callable[[dict[str, Any]], None]) -> None:
    """Receive events for ever, and reconnect after an error of the broker."""
    while True:
        try:
            with app.connection() as connection:
                receiver = TolerantEventReceiver(connection, handlers={"*": handle}, app=app)
                receiver.capture(limit=None, timeout=None, wakeup=True)
        except Exception as error:  # noqa: BLE001 - any error of the transport
            log.warning("events_interrupted", error=type(error).__name__)
        time.sleep(PAUSE)
