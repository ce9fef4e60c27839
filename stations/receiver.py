# SPDX-License-Identifier: Apache-2.0
"""What a desk hears: answers and words of slips, kept before they are told."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from schemas.circulation_events import ANSWERS, Reply, read_reply
from schemas.reasons import PROVISIONAL_REASONS
from schemas.replies import SlipNotice
from stations.journal.events import Journal
from stations.notifier import ReplyNotifier
from stations.settings import StationSettings
from stations.transport import ReplyConsumer


class ReplyReceiver:
    """Listens until it is told to end, and keeps what it hears. Runs on a thread of its own.

    `on_replies` is called with their number when answers have been kept, before they are told; `expects_many` says
    whether answers are to be heard together.
    """

    def __init__(
        self,
        settings: StationSettings,
        journal: Journal,
        notifier: ReplyNotifier,
        now: Callable[[], datetime],
        *,
        on_replies: Callable[[int], None],
        expects_many: Callable[[], bool],
    ) -> None:
        self._url, self._station = settings.broker_url.get_secret_value(), settings.code
        self._journal = journal
        self._notifier = notifier
        self._now = now
        self._on_replies = on_replies
        self._expects_many = expects_many

    def run(self, closing: threading.Event) -> None:
        """Hear until `closing` is set; anew, when the connection or the disk fails."""
        while not closing.is_set():
            consumer: ReplyConsumer | None = None
            try:
                if self._journal.moved_to() is not None:  # the answers are for where it is now
                    closing.wait(1.0)
                    continue
                consumer = ReplyConsumer(self._url, self._station, self.handle)
                checked_at = time.monotonic()
                while not closing.is_set():
                    consumer.receive(0.2, gather=self._expects_many())
                    if time.monotonic() - checked_at > 1:
                        checked_at = time.monotonic()
                        if self._journal.moved_to() is not None:
                            break
            except Exception:  # noqa: BLE001 - whatever the transport or the disk raises: anew, after a moment
                closing.wait(0.5)
            finally:
                if consumer is not None:
                    consumer.close()

    def handle(self, bodies: Sequence[str]) -> None:
        """Keep answers in one write, then the words of slips; what cannot be read is asked again."""
        replies: dict[str, tuple[Reply, str]] = {}
        notices: list[SlipNotice] = []
        for body in bodies:
            with contextlib.suppress(ValueError):
                message: Any = json.loads(body)
                kind = message.get("type") if isinstance(message, dict) else None
                if kind in ANSWERS:
                    reply = read_reply(body)
                    earlier = replies.get(str(reply.event_id))
                    if earlier is None or _is_provisional(earlier[0]):
                        replies[str(reply.event_id)] = (reply, body)
                elif kind == "bookdrop.slip-notice.v1":
                    notices.append(SlipNotice.model_validate(message))
        if replies:
            self._store(replies)
        for notice in notices:
            if self._journal.store_slip_notice(str(notice.event_id), notice.state, notice.message):
                self._notifier.notify_slip(notice)

    def _store(self, replies: Mapping[str, tuple[Reply, str]]) -> None:
        stored = self._journal.store_replies(
            {event_id: body for event_id, (_, body) in replies.items()},
            self._now(),
            provisional={event_id for event_id, (reply, _) in replies.items() if _is_provisional(reply)},
        )
        self._on_replies(len(replies))
        for event_id, (reply, _) in replies.items():
            if event_id in stored:
                self._notifier.notify_reply(reply)


def _is_provisional(reply: Reply) -> bool:
    """Whether the answer is not the last word: the message was kept, and may be answered after all."""
    return reply.outcome == "refused" and reply.reason in PROVISIONAL_REASONS
