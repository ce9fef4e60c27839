# SPDX-License-Identifier: Apache-2.0
"""Receive the task events of printing workers, and keep the latest ones in memory."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from flower.events import Events

SLIP_EVENT: Final = "task-slip-"
MAX_EVENTS: Final = 100


@dataclass(frozen=True)
class SlipEvent:
    """One event of a printing worker."""

    at: datetime
    state: str
    """The new state of the print job, for example `sending` or `held`."""
    slip: str
    printer: str | None
    worker: str


class SlipEventReceiver(Events):  # type: ignore[misc]  # Flower has no types
    """Flower's own event receiver, which also keeps the latest slip events. Flower's state is not changed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.slips: deque[SlipEvent] = deque(maxlen=MAX_EVENTS)
        """Newest first. Only the event loop's thread reads and writes it."""

    def on_event(self, event: dict[str, Any]) -> None:
        """Process an event, in the receiver's thread."""
        super().on_event(event)
        if str(event.get("type")).startswith(SLIP_EVENT) and "slip" in event:
            self.io_loop.add_callback(partial(self._add, event))

    def _add(self, event: dict[str, Any]) -> None:
        self.slips.appendleft(
            SlipEvent(
                at=datetime.fromtimestamp(float(event["timestamp"]), UTC),
                state=str(event["type"]).removeprefix(SLIP_EVENT),
                slip=str(event["slip"]),
                printer=event.get("printer"),
                worker=str(event.get("hostname")),
            )
        )
