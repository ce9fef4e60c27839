# SPDX-License-Identifier: Apache-2.0
"""Each result told once, whoever heard it: this process, or another one of the same station."""

import threading
from collections.abc import Callable
from typing import Final

from schemas.circulation_events import Reply, read_reply
from schemas.replies import SlipNotice
from stations.journal.events import Entry, Journal

MAX_FOLLOWED: Final = 500
"""How many answered events are still followed, for the word of their slips."""


class ReplyNotifier:
    """What was told of the events taken by this process. Thread-safe; the callbacks run on the caller's thread."""

    def __init__(
        self,
        journal: Journal,
        on_reply: Callable[[Entry, Reply], None],
        on_slip: Callable[[Entry], None],
    ) -> None:
        self._journal = journal
        self._on_reply = on_reply
        self._on_slip = on_slip
        self._lock = threading.Lock()
        self._notified: dict[str, str | None] = {}
        """The outcome and reason that were told last; a scan that was set apart may be answered after all."""
        self._slips: dict[str, str | None] = {}
        self._version = journal.data_version()

    def follow(self, event_id: str) -> None:
        """Follow an event that was just taken."""
        with self._lock:
            self._notified[event_id] = None
            if (
                len(self._notified) % MAX_FOLLOWED == 0
            ):  # now and then: a long pipe must not look at all of them each time
                self._drop_oldest()

    def notify_reply(self, reply: Reply) -> None:
        """Tell an answer that is news to the journal; not when it was told already."""
        event_id, result = str(reply.event_id), f"{reply.outcome} {reply.reason}"
        with self._lock:
            if self._notified.get(event_id) == result:
                return
            if event_id in self._notified:
                self._notified[event_id] = result
        if (entry := self._journal.entry(event_id)) is not None:
            self._on_reply(entry, reply)

    def notify_slip(self, notice: SlipNotice) -> None:
        """Tell a word of a slip that is news to the journal."""
        if (entry := self._journal.entry(str(notice.event_id))) is not None:
            self._notify_slip(entry)

    def poll(self) -> None:
        """Tell what another process of this station heard and wrote to the journal."""
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
            self.notify_reply(read_reply(entry.reply))
            if entry.slip_message is not None:
                self._notify_slip(entry)

    def _drop_oldest(self) -> None:
        answered = [event_id for event_id, result in self._notified.items() if result]
        for event_id in answered[: max(0, len(answered) - MAX_FOLLOWED)]:
            del self._notified[event_id]
            self._slips.pop(event_id, None)

    def _notify_slip(self, entry: Entry) -> None:
        with self._lock:
            if entry.event_id in self._notified:
                if self._slips.get(entry.event_id) == entry.slip_message:
                    return
                self._slips[entry.event_id] = entry.slip_message
        self._on_slip(entry)
