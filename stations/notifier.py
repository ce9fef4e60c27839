# SPDX-License-Identifier: Apache-2.0
"""Each answer told once, whoever heard it: this process, or another one of the same station."""

import threading
from collections.abc import Callable
from typing import Final

from schemas.circulation_events import Reply, read_reply
from schemas.replies import SlipNotice
from stations.journal.events import Entry, Journal

FOLLOWED: Final = 500
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
        self._told: dict[str, str | None] = {}
        """The outcome and reason that were told last; a scan that was set apart may be answered after all."""
        self._slips: dict[str, str | None] = {}
        self._version = journal.changes_of_others()

    def add(self, event_id: str) -> None:
        """Follow an event that was just taken."""
        with self._lock:
            self._told[event_id] = None
            if len(self._told) % FOLLOWED == 0:  # now and then: a long pipe must not look at all of them each time
                self._forget()

    def reply(self, reply: Reply) -> None:
        """Tell an answer that is news to the journal; not when it was told already."""
        event_id, answer = str(reply.event_id), f"{reply.outcome} {reply.reason}"
        with self._lock:
            if self._told.get(event_id) == answer:
                return
            if event_id in self._told:
                self._told[event_id] = answer
        if (entry := self._journal.entry(event_id)) is not None:
            self._on_reply(entry, reply)

    def slip(self, notice: SlipNotice) -> None:
        """Tell a word of a slip that is news to the journal."""
        if (entry := self._journal.entry(str(notice.event_id))) is not None:
            self._tell_slip(entry)

    def look(self) -> None:
        """Tell what another process of this station heard and wrote to the journal."""
        version = self._journal.changes_of_others()
        if version == self._version:
            return
        self._version = version
        with self._lock:
            followed = list(self._told)
        for event_id in followed:
            entry = self._journal.entry(event_id)
            if entry is None or entry.reply is None:
                continue
            self.reply(read_reply(entry.reply))
            if entry.slip_words is not None:
                self._tell_slip(entry)

    def _forget(self) -> None:
        answered = [known for known, told in self._told.items() if told]
        for known in answered[: max(0, len(answered) - FOLLOWED)]:
            del self._told[known]
            self._slips.pop(known, None)

    def _tell_slip(self, entry: Entry) -> None:
        with self._lock:
            if entry.event_id in self._told:
                if self._slips.get(entry.event_id) == entry.slip_words:
                    return
                self._slips[entry.event_id] = entry.slip_words
        self._on_slip(entry)
