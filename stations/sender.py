# SPDX-License-Identifier: Apache-2.0
"""Publish each event at once, resend it until its reply arrives, and replay held events in order after an outage.

While disconnected or just reconnected the sender publishes nothing new: held events are queued before new ones.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from schemas import station_status
from stations.journal.events import LATE_AFTER, Entry, Journal
from stations.journal.file import JournalError
from stations.journal.replay import ReplayProgressTracker
from stations.notifier import POLL_SECONDS, ReplyNotifier
from stations.settings import StationSettings
from stations.transport import EventPublisher, OutgoingEvent

MAX_RETRY_INTERVAL: Final = timedelta(seconds=30)
"""Longest interval between two sendings of one event."""
RECONNECT_INTERVAL: Final = timedelta(seconds=1)
"""Interval between two attempts to connect, and between two attempts to publish an event that failed."""

REPLAY_BATCH: Final = 50
"""Held events that are claimed and published together."""
REPLAY_WINDOW: Final = 200
"""Held events published ahead of their replies. The limit keeps one station's backlog from delaying other stations."""

_PRUNE_SECONDS: Final = 1.0
_JOURNAL_ERROR_SECONDS: Final = 1.0


class EventSender:
    """Publishes what a journal holds. `run` occupies a thread; the other methods are thread-safe."""

    def __init__(
        self,
        settings: StationSettings,
        journal: Journal,
        notifier: ReplyNotifier,
        progress: ReplayProgressTracker,
        now: Callable[[], datetime],
    ) -> None:
        self._retry_interval_seconds = settings.retry_interval_seconds
        self._journal = journal
        self._notifier = notifier
        self._progress = progress
        self._now = now
        self._publisher = EventPublisher(settings.broker_url.get_secret_value(), settings.code)
        self._new: deque[Entry] = deque()
        self._wakeup = threading.Event()
        self._replay_requested = threading.Event()
        self._is_connected = True
        self._reconnect_at = 0.0
        self._in_flight = 0
        """Approximate number of held events published without a reply; 0 once fewer than a batch are due."""
        self._in_flight_lock = threading.Lock()

    @property
    def is_connected(self) -> bool:
        """True when the last attempt to reach the broker succeeded."""
        return self._is_connected

    @property
    def expects_many(self) -> bool:
        """True while many replies are expected, so that the receiver gathers them."""
        return self._in_flight > 0

    def enqueue(self, entry: Entry) -> None:
        """Publish an event that was just stored, as soon as possible."""
        self._new.append(entry)
        self._wakeup.set()

    def wake(self) -> None:
        """Check for due events, and for the end, without waiting for the next poll."""
        self._wakeup.set()

    def replay(self) -> int:
        """Mark every unanswered event due now, oldest first; return their number."""
        now = self._now()
        count = self._journal.mark_all_due(now, now)
        self._replay_requested.set()
        self._wakeup.set()
        return count

    def retry_delay(self, attempts: int) -> timedelta:
        """Time to wait for a reply after `attempts` sendings before the next one; doubles up to the maximum."""
        seconds = self._retry_interval_seconds * 2 ** min(attempts - 1, 6)
        return min(timedelta(seconds=seconds), MAX_RETRY_INTERVAL)

    def replies_received(self, count: int) -> None:
        """Count replies, so that the next held events can be published."""
        with self._in_flight_lock:
            if self._in_flight:
                before, self._in_flight = self._in_flight, max(self._in_flight - count, 0)
                if before > REPLAY_WINDOW - REPLAY_BATCH >= self._in_flight:
                    self._wakeup.set()

    def run(self, closing: threading.Event) -> None:
        """Publish until `closing` is set, then publish what was stored last and close the connection."""
        with contextlib.closing(self._publisher):
            with contextlib.suppress(JournalError):  # an earlier outage's events are sent in their order
                self._mark_all_due(self._now() - LATE_AFTER)
            pruned_at = 0.0
            while not closing.is_set():
                self._wakeup.wait(POLL_SECONDS)
                self._wakeup.clear()
                try:
                    self._run_once()
                    if time.monotonic() - pruned_at > _PRUNE_SECONDS:
                        pruned_at = time.monotonic()
                        self._journal.prune()
                except JournalError:
                    # What is stored stays on disk, and the next scan reports the error to staff.
                    closing.wait(_JOURNAL_ERROR_SECONDS)
            if self._is_connected:  # otherwise the journal holds it for the next start
                with contextlib.suppress(JournalError):
                    self._publish(self._take_new())

    def _run_once(self) -> None:
        if self._replay_requested.is_set():
            self._replay_requested.clear()
            self._progress.start()
        if self._is_connected:
            self._publish(self._take_new())
            if self._is_connected:
                self._progress.poll()
                self._publish_due()
        else:
            self._reconnect()
        self._notifier.poll()

    def _reconnect(self) -> None:
        """Try to connect; mark everything due once connected, and hold new events until then."""
        if time.monotonic() >= self._reconnect_at:
            try:
                self._publisher.connect()
            except Exception:  # noqa: BLE001 - whatever the transport raises: the broker is still unreachable
                self._reconnect_at = time.monotonic() + RECONNECT_INTERVAL.total_seconds()
            else:
                self._is_connected = True
                self._wakeup.set()
        new = self._take_new()
        if self._is_connected:
            self._mark_all_due(self._now())
        elif new:
            self._journal.hold((entry.event_id for entry in new), self._now())

    def _mark_all_due(self, made_before: datetime) -> None:
        self._journal.mark_all_due(made_before, self._now())
        self._progress.start()

    def _publish_due(self) -> None:
        """Publish what is due. Of many held events, replies release the next ones; they do not wait for the poll."""
        due = self._journal.claim_due(self._now(), self._due_retry_delay, REPLAY_BATCH)
        self._publish(due)
        with self._in_flight_lock:
            self._in_flight = self._in_flight + len(due) if len(due) == REPLAY_BATCH and self._is_connected else 0
            if 0 < self._in_flight < REPLAY_WINDOW:
                self._wakeup.set()

    def _due_retry_delay(self, attempts: int) -> timedelta:
        """The longest delay during a long replay: staff have moved on, and early resends would prolong it."""
        return MAX_RETRY_INTERVAL if self._progress.total >= REPLAY_BATCH else self.retry_delay(attempts)

    def _take_new(self) -> list[Entry]:
        return [self._new.popleft() for _ in range(len(self._new))]

    def _publish(self, entries: list[Entry]) -> None:
        """Publish `entries` together; hold them when the transport fails."""
        if not entries:
            return
        now = self._now()
        held, held_since = self._journal.count_due(now)
        events = [
            OutgoingEvent(
                entry.event_id,
                entry.task,
                entry.payload,
                station_status.to_header(now, entry.attempts, held, held_since),
            )
            for entry in entries
        ]
        try:
            self._publisher.publish(events)
        except Exception:  # noqa: BLE001 - whatever the transport raises: the journal holds the events for a resend
            self._is_connected = False
            self._reconnect_at = time.monotonic() + RECONNECT_INTERVAL.total_seconds()
            self._journal.hold((entry.event_id for entry in entries), self._now())
        else:
            self._is_connected = True
