# SPDX-License-Identifier: Apache-2.0
"""Receive task events: pass the accepted ones to Flower, and keep the latest ones about slips in memory."""

from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from flower.events import Events

from workers.flower.event_filter import SLIP_EVENT, accepted_event
from workers.flower.event_receiver import receive_events

MAX_EVENTS: Final = 100

MAX_WORKERS: Final = 200
"""Names of workers in Flower's metrics and pages. A further name replaces the one whose last event is the oldest."""


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
    """Flower's own event receiver behind a filter. It also keeps the latest slip events."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.slips: deque[SlipEvent] = deque(maxlen=MAX_EVENTS)
        """Newest first. Only the event loop's thread reads and writes it."""
        self._workers: OrderedDict[str, None] = OrderedDict()
        """Names of workers, the one with the newest event last. Only the event loop's thread uses it."""

    def run(self) -> None:
        """Receive events, in a separate thread. Flower's own loop stops receiving for a while at each malformed one."""
        receive_events(self.capp, self.on_event)

    def on_event(self, event: dict[str, Any]) -> None:
        """Process an event, in the receiver's thread. An event that is not accepted is dropped."""
        accepted = accepted_event(event)
        if accepted is not None:
            self.io_loop.add_callback(partial(self._process, accepted))

    def _process(self, event: dict[str, Any]) -> None:
        self._limit_workers(event["hostname"])
        if str(event["type"]).startswith(SLIP_EVENT) and "slip" in event:
            self._add(event)
        self.state.event(event)

    def _limit_workers(self, name: str) -> None:
        """Remove the worker whose last event is the oldest when `name` is one too many."""
        self._workers[name] = None
        self._workers.move_to_end(name)
        if len(self._workers) > MAX_WORKERS:
            oldest, _ = self._workers.popitem(last=False)
            self.state.metrics.remove_workers({oldest})
            self.state.workers.pop(oldest, None)
            self.state.counter.pop(oldest, None)

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
