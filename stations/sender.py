# SPDX-License-Identifier: Apache-2.0
"""What a desk says: each scan at once, and again until it is answered; after an outage all that was held, in order."""

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
from stations.notifier import ReplyNotifier
from stations.settings import StationSettings
from stations.transport import EventPublisher, OutgoingEvent

MAX_RETRY_INTERVAL: Final = timedelta(seconds=30)
"""Longest wait between two sendings of one event."""
RECONNECT_INTERVAL: Final = timedelta(seconds=1)
"""How soon a sending that failed is tried again."""

REPLAY_BATCH: Final = 50
"""How many held events are claimed and said in one go."""
REPLAY_WINDOW: Final = 200
"""How many held events are said ahead of their answers, so that an outage's backlog does not crowd other desks out."""

POLL_SECONDS: Final = 0.1
"""How often the journal is looked at for what is due, and for what another process of this station wrote."""


class EventSender:
    """Says what a journal holds. `run` runs on a thread of its own; the other methods are for any thread."""

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
        self._is_connected = True
        self._reconnect_at = 0.0
        self._in_flight = 0
        """Held events that were said and not answered, about; while there may be more of them."""
        self._in_flight_lock = threading.Lock()

    @property
    def is_connected(self) -> bool:
        """Whether the broker could be spoken to the last time it was tried."""
        return self._is_connected

    @property
    def expects_many(self) -> bool:
        """Whether many answers are on their way."""
        return self._in_flight > 0

    def enqueue(self, entry: Entry) -> None:
        """Have an event said at once that was just taken."""
        self._new.append(entry)
        self._wakeup.set()

    def wake(self) -> None:
        """Look now for what is due, and whether it is time to end."""
        self._wakeup.set()

    def retry_delay(self, attempts: int) -> timedelta:
        """How long an answer is waited for, after so many sendings, before the event is said again."""
        seconds = self._retry_interval_seconds * 2 ** min(attempts - 1, 6)
        return min(timedelta(seconds=seconds), MAX_RETRY_INTERVAL)

    def replies_received(self, count: int) -> None:
        """So many answers have come: the next held events may go."""
        with self._in_flight_lock:
            if self._in_flight:
                before, self._in_flight = self._in_flight, max(self._in_flight - count, 0)
                if before > REPLAY_WINDOW - REPLAY_BATCH >= self._in_flight:
                    self._wakeup.set()

    def run(self, closing: threading.Event) -> None:
        """Say what is to be said until `closing` is set, and what was taken in the last moment; then hang up."""
        with contextlib.closing(self._publisher):
            self._run(closing)

    def _run(self, closing: threading.Event) -> None:
        pruned_at = 0.0
        with contextlib.suppress(JournalError):  # what was left by an outage goes in its order
            self._journal.mark_all_due(self._now() - LATE_AFTER, self._now())
            self._progress.start()
        while not closing.is_set():
            self._wakeup.wait(POLL_SECONDS)
            self._wakeup.clear()
            try:
                if not self._reconnect():
                    self._publish(self._take_new())
                    if self._is_connected:
                        self._progress.poll()
                        self._send_due()
                self._notifier.poll()
                if time.monotonic() - pruned_at > 1:
                    pruned_at = time.monotonic()
                    self._journal.prune()
            except JournalError:
                # What was taken is on the disk; whoever scans next is told. Here there is nobody to tell.
                closing.wait(1.0)
        if self._is_connected:  # otherwise the journal holds it for the next start
            with contextlib.suppress(JournalError):
                self._publish(self._take_new())

    def _reconnect(self) -> bool:
        """Whether the broker is away, or has just come back: then nothing is said before everything held is due."""
        if self._is_connected:
            return False
        if time.monotonic() >= self._reconnect_at:
            try:
                self._publisher.connect()
            except Exception:  # noqa: BLE001 - whatever the transport raises: it is away still
                self._reconnect_at = time.monotonic() + RECONNECT_INTERVAL.total_seconds()
            else:
                self._is_connected = True
                self._wakeup.set()
        new, now = self._take_new(), self._now()
        if self._is_connected:
            self._journal.mark_all_due(now, now)
            self._progress.start()
        elif new:
            self._journal.hold((entry.event_id for entry in new), now)
        return True

    def _send_due(self) -> None:
        """Say what is due. Of many held events the next ones go as answers come, not at the next look."""
        due = self._journal.claim_due(self._now(), self._replay_retry_delay, REPLAY_BATCH)
        self._publish(due, extra_attempts=1)
        with self._in_flight_lock:
            self._in_flight = self._in_flight + len(due) if len(due) == REPLAY_BATCH and self._is_connected else 0
            if 0 < self._in_flight < REPLAY_WINDOW:
                self._wakeup.set()

    def _replay_retry_delay(self, attempts: int) -> timedelta:
        """In a long replay nobody stands there and waits: asking again soon would only make it longer."""
        return MAX_RETRY_INTERVAL if self._progress.total >= REPLAY_BATCH else self.retry_delay(attempts)

    def _take_new(self) -> list[Entry]:
        return [self._new.popleft() for _ in range(len(self._new))]

    def _publish(self, entries: list[Entry], extra_attempts: int = 0) -> None:
        """Say `entries`; `again` is 1 when they are due although they were said, or tried to be, before."""
        if not entries:
            return
        now = self._now()
        held = self._journal.count_due(now)
        try:
            self._publisher.publish(
                [
                    OutgoingEvent(
                        entry.event_id,
                        entry.task,
                        entry.payload,
                        station_status.to_header(now, entry.attempts + extra_attempts, *held),
                    )
                    for entry in entries
                ]
            )
            self._is_connected = True
        except Exception:  # noqa: BLE001 - whatever the transport raises: it is kept, and said again
            self._is_connected = False
            self._reconnect_at = time.monotonic() + RECONNECT_INTERVAL.total_seconds()
            self._journal.hold((entry.event_id for entry in entries), self._now())
