# SPDX-License-Identifier: Apache-2.0
"""What happens to slips at this moment: the events of print workers, the last ones kept in memory."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from flower.events import Events

SLIP_EVENT: Final = "task-slip-"
KEPT: Final = 100


@dataclass(frozen=True)
class SlipEvent:
    """One thing that a print worker announced."""

    at: datetime
    what: str
    """The state the slip came to, such as `sending` or `held`."""
    slip: str
    printer: str | None
    worker: str


class LiveEvents(Events):  # type: ignore[misc]  # Flower has no types
    """Flower's own receiver of events, which keeps the last ones about slips besides. Its state is Flower's alone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.slips: deque[SlipEvent] = deque(maxlen=KEPT)
        """The newest first. Only the loop's own thread looks at it."""

    def on_event(self, event: dict[str, Any]) -> None:
        """Take an event, in the thread that receives."""
        super().on_event(event)
        if str(event.get("type")).startswith(SLIP_EVENT) and "slip" in event:
            self.io_loop.add_callback(partial(self._keep, event))

    def _keep(self, event: dict[str, Any]) -> None:
        self.slips.appendleft(
            SlipEvent(
                at=datetime.fromtimestamp(float(event["timestamp"]), UTC),
                what=str(event["type"]).removeprefix(SLIP_EVENT),
                slip=str(event["slip"]),
                printer=event.get("printer"),
                worker=str(event.get("hostname")),
            )
        )
