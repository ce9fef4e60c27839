# SPDX-License-Identifier: Apache-2.0
"""Receive replies and slip notices: read each once, store it in the journal, then notify."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from schemas.circulation_events import Reply
from schemas.reasons import PROVISIONAL_REASONS
from schemas.replies import SlipNotice
from stations.journal.events import Journal
from stations.journal.file import JournalError
from stations.notifier import ReplyNotifier
from stations.reply_check import ReplyCheck
from stations.sender import EventSender
from stations.settings import StationSettings
from stations.transport import ReplyConsumer

_RECEIVE_SECONDS: Final = 0.2
_MOVED_CHECK_SECONDS: Final = 1.0
_RECONNECT_SECONDS: Final = 0.5


class _Received(NamedTuple):
    reply: Reply
    body: str
    """The reply's JSON as it came."""


class ReplyReceiver:
    """Consumes the station's reply queue. `run` occupies a thread; `handle` is called on that thread."""

    def __init__(
        self,
        settings: StationSettings,
        journal: Journal,
        notifier: ReplyNotifier,
        sender: EventSender,
        now: Callable[[], datetime],
    ) -> None:
        self._url, self._station = settings.broker_url.get_secret_value(), settings.code
        self._journal = journal
        self._check = ReplyCheck(
            journal,
            settings.code,
            settings.key.get_secret_value(),
            requires_signatures=settings.require_signed_replies,
            now=now,
        )
        self._notifier = notifier
        self._sender = sender
        self._now = now

    def run(self, closing: threading.Event) -> None:
        """Consume until `closing` is set; reconnect when the connection or the disk fails."""
        while not closing.is_set():
            try:
                if self._journal.moved_to() is None:
                    self._consume(closing)
                else:  # the replies belong to the machine that has the journal now
                    closing.wait(_MOVED_CHECK_SECONDS)
            except Exception:  # noqa: BLE001 - whatever the transport or the disk raises: reconnect after a moment
                closing.wait(_RECONNECT_SECONDS)
        with contextlib.suppress(JournalError):
            self._check.count(at_once=True)

    def _consume(self, closing: threading.Event) -> None:
        """Consume until `closing` is set or the journal moves to another machine."""
        with contextlib.closing(ReplyConsumer(self._url, self._station, self.handle)) as consumer:
            checked_at = time.monotonic()
            while not closing.is_set():
                consumer.receive(_RECEIVE_SECONDS, gather=self._sender.expects_many)
                self._check.count()
                if time.monotonic() - checked_at > _MOVED_CHECK_SECONDS:
                    checked_at = time.monotonic()
                    if self._journal.moved_to() is not None:
                        return

    def handle(self, bodies: Sequence[str]) -> None:
        """Store all replies in one write, then each slip notice; notify about each after its write.

        A message that cannot be read, or that must be signed and is not, is skipped; the sender resends its event. Of
        several replies to one event the first final one counts.
        """
        replies: dict[str, _Received] = {}
        notices: list[SlipNotice] = []
        for body in bodies:
            received = self._check.read(body)
            if received is None:
                continue
            message = received.message
            if isinstance(message, SlipNotice):
                notices.append(message)
                continue
            earlier = replies.get(str(message.event_id))
            if earlier is None or _is_provisional(earlier.reply):
                replies[str(message.event_id)] = _Received(message, received.body)
        if replies:
            self._store_replies(replies)
        for notice in notices:
            self._store_slip_notice(notice)

    def _store_replies(self, replies: dict[str, _Received]) -> None:
        stored = self._journal.store_replies(
            {event_id: received.body for event_id, received in replies.items()},
            self._now(),
            provisional={event_id for event_id, received in replies.items() if _is_provisional(received.reply)},
        )
        self._notifier.replies_stored()
        self._sender.replies_received(len(replies))
        for entry in stored:
            self._notifier.notify_reply(entry, replies[entry.event_id].reply)

    def _store_slip_notice(self, notice: SlipNotice) -> None:
        entry = self._journal.store_slip_notice(notice, self._now())
        if entry is not None:
            self._notifier.notify_slip(entry)


def _is_provisional(reply: Reply) -> bool:
    """True for a refusal that a later reply may replace: the message is quarantined and may be processed after all."""
    return reply.outcome == "refused" and reply.reason in PROVISIONAL_REASONS
