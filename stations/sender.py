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
from stations.journal.events import HELD_AFTER, Entry, Journal
from stations.journal.file import JournalError
from stations.journal.replay import ReplayProgressTracker
from stations.notifier import ReplyNotifier
from stations.settings import StationSettings
from stations.transport import EventPublisher, OutgoingEvent

LONGEST_RESEND: Final = timedelta(seconds=30)
"""Longest wait between two sendings of one event."""
AFTER_AN_OUTAGE: Final = timedelta(seconds=1)
"""How soon a sending that failed is tried again."""

HELD_AT_ONCE: Final = 50
"""How many held events are claimed and said in one go."""
AHEAD: Final = 200
"""How many held events are said ahead of their answers, so that an outage's backlog does not crowd other desks out."""

LOOK_SECONDS: Final = 0.1
"""How often the journal is looked at for what is due, and for what another process of this station wrote."""


class EventSender:
    """Says what a journal holds. `run` runs on a thread of its own; the other methods are for any thread."""

    def __init__(
        self,
        settings: StationSettings,
        journal: Journal,
        following: ReplyNotifier,
        replaying: ReplayProgressTracker,
        now: Callable[[], datetime],
    ) -> None:
        self._resend_seconds = settings.retry_interval_seconds
        self._journal = journal
        self._following = following
        self._replaying = replaying
        self._now = now
        self._mouth = EventPublisher(settings.broker_url.get_secret_value(), settings.code)
        self._to_say: deque[Entry] = deque()
        self._wanted = threading.Event()
        self._is_reached = True
        self._try_again_at = 0.0
        self._ahead = 0
        """Held events that were said and not answered, about; while there may be more of them."""
        self._counting = threading.Lock()

    @property
    def is_connected(self) -> bool:
        """Whether the broker could be spoken to the last time it was tried."""
        return self._is_reached

    @property
    def expects_many(self) -> bool:
        """Whether many answers are on their way."""
        return self._ahead > 0

    def enqueue(self, entry: Entry) -> None:
        """Have an event said at once that was just taken."""
        self._to_say.append(entry)
        self._wanted.set()

    def look(self) -> None:
        """Look now for what is due, and whether it is time to end."""
        self._wanted.set()

    def wait_after(self, attempts: int) -> timedelta:
        """How long an answer is waited for, after so many sendings, before the event is said again."""
        seconds = self._resend_seconds * 2 ** min(attempts - 1, 6)
        return min(timedelta(seconds=seconds), LONGEST_RESEND)

    def answered(self, number: int) -> None:
        """So many answers have come: the next held events may go."""
        with self._counting:
            if self._ahead:
                was, self._ahead = self._ahead, max(self._ahead - number, 0)
                if was > AHEAD - HELD_AT_ONCE >= self._ahead:
                    self._wanted.set()

    def run(self, closing: threading.Event) -> None:
        """Say what is to be said until `closing` is set, and what was taken in the last moment; then hang up."""
        with contextlib.closing(self._mouth):
            self._run(closing)

    def _run(self, closing: threading.Event) -> None:
        pruned_at = 0.0
        with contextlib.suppress(JournalError):  # what was left by an outage goes in its order
            self._journal.mark_all_due(self._now() - HELD_AFTER, self._now())
            self._replaying.begin()
        while not closing.is_set():
            self._wanted.wait(LOOK_SECONDS)
            self._wanted.clear()
            try:
                if not self._reconnect():
                    self._say_all(self._fresh())
                    if self._is_reached:
                        self._replaying.look()
                        self._say_due()
                self._following.look()
                if time.monotonic() - pruned_at > 1:
                    pruned_at = time.monotonic()
                    self._journal.prune()
            except JournalError:
                # What was taken is on the disk; whoever scans next is told. Here there is nobody to tell.
                closing.wait(1.0)
        if self._is_reached:  # otherwise the journal holds it for the next start
            with contextlib.suppress(JournalError):
                self._say_all(self._fresh())

    def _reconnect(self) -> bool:
        """Whether the broker is away, or has just come back: then nothing is said before everything held is due."""
        if self._is_reached:
            return False
        if time.monotonic() >= self._try_again_at:
            try:
                self._mouth.reach()
            except Exception:  # noqa: BLE001 - whatever the transport raises: it is away still
                self._try_again_at = time.monotonic() + AFTER_AN_OUTAGE.total_seconds()
            else:
                self._is_reached = True
                self._wanted.set()
        fresh, now = self._fresh(), self._now()
        if self._is_reached:
            self._journal.mark_all_due(now, now)
            self._replaying.begin()
        elif fresh:
            self._journal.hold((entry.event_id for entry in fresh), now)
        return True

    def _say_due(self) -> None:
        """Say what is due. Of many held events the next ones go as answers come, not at the next look."""
        due = self._journal.due(self._now(), self._wait_of_held, HELD_AT_ONCE)
        self._say_all(due, again=1)
        with self._counting:
            self._ahead = self._ahead + len(due) if len(due) == HELD_AT_ONCE and self._is_reached else 0
            if 0 < self._ahead < AHEAD:
                self._wanted.set()

    def _wait_of_held(self, attempts: int) -> timedelta:
        """In a long replay nobody stands there and waits: asking again soon would only make it longer."""
        return LONGEST_RESEND if self._replaying.total >= HELD_AT_ONCE else self.wait_after(attempts)

    def _fresh(self) -> list[Entry]:
        return [self._to_say.popleft() for _ in range(len(self._to_say))]

    def _say_all(self, entries: list[Entry], again: int = 0) -> None:
        """Say `entries`; `again` is 1 when they are due although they were said, or tried to be, before."""
        if not entries:
            return
        now = self._now()
        held = self._journal.waiting(now)
        try:
            self._mouth.publish(
                [
                    OutgoingEvent(
                        each.event_id,
                        each.task,
                        each.payload,
                        station_status.to_header(now, each.attempts + again, *held),
                    )
                    for each in entries
                ]
            )
            self._is_reached = True
        except Exception:  # noqa: BLE001 - whatever the transport raises: it is kept, and said again
            self._is_reached = False
            self._try_again_at = time.monotonic() + AFTER_AN_OUTAGE.total_seconds()
            self._journal.hold((entry.event_id for entry in entries), self._now())
