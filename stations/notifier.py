# SPDX-License-Identifier: Apache-2.0
"""Deliver each reply once, whichever process of the station received it."""

import threading
import time
from collections.abc import Callable
from typing import Final

from schemas.circulation_events import Reply, read_reply
from stations.journal.events import Entry, Journal

MAX_FOLLOWED: Final = 500
"""Events with a reply that are still followed, because notices about their slips may come."""
POLL_SECONDS: Final = 0.1
"""Interval at which the journal is polled for what another process of this station wrote."""


class ReplyNotifier:
    """Calls back for the events of this process, and wakes callers that wait for a reply.

    Thread-safe. The callbacks run on the thread that notifies.
    """

    def __init__(
        self,
        journal: Journal,
        on_reply: Callable[[Entry, Reply], None],
        on_slip: Callable[[Entry], None],
    ) -> None:
        self._journal = journal
        self._on_reply = on_reply
        self._on_slip = on_slip
        self._stored = threading.Condition()
        self._lock = threading.Lock()
        self._notified: dict[str, str | None] = {}
        """Outcome and reason of the last reply delivered, by event id; a provisional refusal may be replaced."""
        self._slips: dict[str, str | None] = {}
        self._version = journal.data_version()

    def follow(self, event_id: str) -> None:
        """Follow an event that this process has stored."""
        with self._lock:
            self._notified[event_id] = None
            if len(self._notified) % MAX_FOLLOWED == 0:  # not on each event: a long pipe would scan the dict each time
                self._drop_oldest()

    def wait(self, event_id: str, seconds: float) -> Reply | None:
        """Wait until the journal holds the reply to an event; `None` after `seconds`."""
        deadline = time.monotonic() + seconds
        with self._stored:
            while True:
                entry = self._journal.entry(event_id)
                if entry is not None and entry.reply is not None:
                    return read_reply(entry.reply)
                if (left := deadline - time.monotonic()) <= 0:
                    return None
                # Another process of this station writes to the journal only, which does not wake this one.
                self._stored.wait(min(left, POLL_SECONDS))

    def replies_stored(self) -> None:
        """Wake the callers of `wait`."""
        with self._stored:
            self._stored.notify_all()

    def notify_reply(self, entry: Entry, reply: Reply) -> None:
        """Deliver a reply that is new to the journal, unless it was delivered already."""
        result = f"{reply.outcome} {reply.reason}"
        with self._lock:
            if self._notified.get(entry.event_id) == result:
                return
            if entry.event_id in self._notified:
                self._notified[entry.event_id] = result
        self._on_reply(entry, reply)

    def notify_slip(self, entry: Entry) -> None:
        """Deliver a slip notice that is new to the journal, unless it was delivered already."""
        with self._lock:
            if entry.event_id in self._notified:
                if self._slips.get(entry.event_id) == entry.slip_message:
                    return
                self._slips[entry.event_id] = entry.slip_message
        self._on_slip(entry)

    def poll(self) -> None:
        """Deliver what another process of this station received and wrote to the journal."""
        version = self._journal.data_version()
        if version == self._version:
            return
        self._version = version
        with self._lock:
            followed = list(self._notified)
        for event_id in followed:
            entry = self._journal.entry(event_id)
            if entry is None or entry.reply is None:
                continue
            self.notify_reply(entry, read_reply(entry.reply))
            if entry.slip_message is not None:
                self.notify_slip(entry)

    def _drop_oldest(self) -> None:
        replied = [event_id for event_id, result in self._notified.items() if result]
        for event_id in replied[: max(0, len(replied) - MAX_FOLLOWED)]:
            del self._notified[event_id]
            self._slips.pop(event_id, None)
