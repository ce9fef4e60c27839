# SPDX-License-Identifier: Apache-2.0
"""The client that never loses a scan: kept on disk first, then sent, and asked again until it is answered.

A resend carries the same event id and the same bytes; the worker's inbox makes it harmless.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal, Self
from uuid import UUID

from uuid6 import uuid7

from schemas import signing
from schemas.barcodes import clean
from schemas.circulation_events import TASKS, CycleEvent, Reply, read_reply
from schemas.events import BarcodeScanned, Override, ReturnRequested, StationEvent
from schemas.topology import PROCESS_RETURN, PROCESS_SCAN
from stations.journal.events import Entry, Journal
from stations.journal.replay import Progress, ReplayProgressTracker
from stations.notifier import ReplyNotifier
from stations.receiver import ReplyReceiver
from stations.sender import POLL_SECONDS, EventSender
from stations.settings import StationSettings

_UNSIGNED: Final = "0" * 64


class PatronCardError(ValueError):
    """The line is a patron's card: it is neither kept nor sent."""

    def __init__(self) -> None:
        super().__init__("That is a patron card, not an item. Nothing was sent. Scan the barcode on the item.")


class StationClient:
    """A station's side of the wire. Use as a context manager; it speaks and listens on threads of its own.

    `on_reply` is called once for each answer, `on_slip` for each word of a slip, `on_progress` now and then while events
    that were held go out, all on a thread of the client's.
    Raises `JournalError` when the journal cannot be used.
    """

    def __init__(
        self,
        settings: StationSettings,
        *,
        on_reply: Callable[[Entry, Reply], None] | None = None,
        on_slip: Callable[[Entry], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], UUID] = uuid7,
    ) -> None:
        self.settings = settings
        self.journal = Journal(settings.journal_file, settings.code, settings.journal_limits)
        self._now = now
        self._new_id = new_id
        self._reply_stored = threading.Condition()
        self._closing = threading.Event()
        self._notifier = ReplyNotifier(
            self.journal, on_reply or (lambda _entry, _reply: None), on_slip or (lambda _entry: None)
        )
        progress = ReplayProgressTracker(self.journal, on_progress or (lambda _progress: None))
        self._sender = EventSender(settings, self.journal, self._notifier, progress, now)
        receiver = ReplyReceiver(
            settings,
            self.journal,
            self._notifier,
            now,
            on_replies=self._on_replies,
            expects_many=lambda: self._sender.expects_many,
        )
        self._threads = [
            threading.Thread(target=self._sender.run, args=[self._closing], name="bookdrop-sender", daemon=True),
            threading.Thread(target=receiver.run, args=[self._closing], name="bookdrop-receiver", daemon=True),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._sender.wake()
        for thread in self._threads:
            thread.join()
        self.journal.close()

    @property
    def is_connected(self) -> bool:
        """Whether the broker could be spoken to the last time it was tried."""
        return self._sender.is_connected

    def scan(self, barcode: str, *, returned_at: datetime | None = None, print_slip: bool | None = None) -> UUID:
        """Take a scanned line, to be sent at once; give the event's id.

        Raises `BarcodeRefusedError` when the line is no barcode, `PatronCardError`, and `JournalError` when it
        cannot be kept; then nothing is sent. A broker that is away is no error: the scan is held and sent later.
        """
        cleaned = self._clean(barcode)
        return self._send(
            PROCESS_SCAN,
            cleaned,
            lambda event_id, sequence: BarcodeScanned(
                event_id=event_id,
                station=self.settings.code,
                sequence=sequence,
                signature=_UNSIGNED,
                barcode=cleaned,
                scanned_at=self._now(),
                returned_at=returned_at,
                print_slip=self.settings.print_slip if print_slip is None else print_slip,
            ),
        )

    def request_return(
        self,
        request: str,
        *,
        note: str | None = None,
        print_slip: bool = False,
        returned_at: datetime | None = None,
        override: Override | None = None,
        resolution: Literal["found_by_library", "returned_by_patron"] | None = None,
        force_partial: bool = False,
    ) -> UUID:
        """Return a request by its external identifier; give the event's id. Errors are those of `scan`.

        Raises `pydantic.ValidationError` for a request or note that no message can carry.
        """
        return self._send(
            PROCESS_RETURN,
            request.strip(),
            lambda event_id, sequence: ReturnRequested(
                event_id=event_id,
                station=self.settings.code,
                sequence=sequence,
                signature=_UNSIGNED,
                request=request.strip(),
                requested_at=self._now(),
                note=note,
                print_slip=print_slip,
                returned_at=returned_at,
                override=override,
                resolution=resolution,
                force_partial=force_partial,
            ),
        )

    def send_event(self, kind: type[CycleEvent], **fields: Any) -> UUID:
        """Say an event of the cycle around the Return, such as `ItemLoaned`; give the event's id.

        `fields` are the event's own. Errors are those of `scan` and `request_return`.
        """
        subject = str(fields.get("request") or fields.get("undoes") or fields.get("reprints"))
        if "barcode" in fields:
            fields["barcode"] = subject = self._clean(fields["barcode"])
        return self._send(
            TASKS[kind],
            subject,
            lambda event_id, sequence: kind(
                **{"at": self._now(), **fields},
                event_id=event_id,
                station=self.settings.code,
                sequence=sequence,
                signature=_UNSIGNED,
            ),
        )

    def _clean(self, barcode: str) -> str:
        cleaned = clean(barcode, self.settings.scanner_prefix)
        pattern = self.settings.patron_card_pattern
        if pattern is not None and re.fullmatch(pattern, cleaned):
            raise PatronCardError
        return cleaned

    def wait(self, event_id: UUID, seconds: float) -> Reply | None:
        """Wait for the answer to an event; `None` when none came within `seconds`. It may still come."""
        deadline = time.monotonic() + seconds
        with self._reply_stored:
            while True:
                entry = self.journal.entry(str(event_id))
                if entry is not None and entry.reply is not None:
                    return read_reply(entry.reply)
                if (left := deadline - time.monotonic()) <= 0:
                    return None
                # The news of another process of this station comes through the journal, which does not wake us.
                self._reply_stored.wait(min(left, POLL_SECONDS))

    def _send(self, task: str, subject: str, build: Callable[[UUID, int], StationEvent]) -> UUID:
        event_id = self._new_id()

        def build_row(sequence: int) -> tuple[str, str, str, str]:
            payload = build(event_id, sequence).model_dump(mode="json", exclude_none=True)
            del payload["signature"]
            payload["signature"] = signing.sign(payload, self.settings.key.get_secret_value().encode())
            return str(event_id), task, subject, json.dumps(payload, ensure_ascii=False)

        now = self._now()
        entry = self.journal.take(build_row, now, now + self._sender.retry_delay(1))
        self._notifier.follow(entry.event_id)
        self._sender.enqueue(entry)
        return event_id

    def replay(self) -> int:
        """Have everything without an answer be asked again now, in the order in which it was taken; give how many."""
        now = self._now()
        count = self.journal.mark_all_due(now, now)
        self._sender.wake()
        return count

    def _on_replies(self, count: int) -> None:
        with self._reply_stored:
            self._reply_stored.notify_all()
        self._sender.replies_received(count)
