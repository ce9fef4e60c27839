# SPDX-License-Identifier: Apache-2.0
"""A station's client: stores each event on disk, publishes it, and resends it until the reply arrives.

A resend carries the same event id and the same bytes, so the worker's inbox makes it harmless.
"""

import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, NewType, Self
from uuid import UUID

from uuid6 import uuid7

from schemas import signing
from schemas.barcodes import read_line, verify_check_digit
from schemas.circulation_events import TASKS, CirculationEvent, Reply
from schemas.events import BarcodeScanned, Override, ReturnRequested, StationEvent
from schemas.topology import PROCESS_RETURN, PROCESS_SCAN
from stations.journal.events import Entry, Journal, NewEvent
from stations.journal.replay import Progress, ReplayProgressTracker
from stations.journal.signing_key import adopt_key
from stations.notifier import ReplyNotifier
from stations.receiver import ReplyReceiver
from stations.sender import EventSender
from stations.settings import StationSettings

ItemBarcode = NewType("ItemBarcode", str)
"""A barcode that `StationClient.read_barcode` cleaned and compared with the patron card pattern."""

_UNSIGNED: Final = "0" * 64
"""Placeholder: `_signed_json` replaces it once the journal has assigned the sequence number."""


class PatronCardError(ValueError):
    """The line is a patron card; it is neither stored nor sent."""

    def __init__(self) -> None:
        super().__init__("That is a patron card, not an item. Nothing was sent. Scan the barcode on the item.")


class StationClient:
    """A station's connection to the workers. Use as a context manager; it sends and receives on two threads.

    The client's threads call `on_reply` once for each reply and `on_slip` for each change of a slip. They call
    `on_progress` at most once a second while held events are sent.
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
        adopt_key(self.journal, settings.key.get_secret_value())
        self._now = now
        self._new_id = new_id
        self._closing = threading.Event()
        self._notifier = ReplyNotifier(
            self.journal, on_reply or (lambda _entry, _reply: None), on_slip or (lambda _entry: None)
        )
        progress = ReplayProgressTracker(self.journal, on_progress or (lambda _progress: None))
        self._sender = EventSender(settings, self.journal, self._notifier, progress, now)
        receiver = ReplyReceiver(settings, self.journal, self._notifier, self._sender, now)
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
        """True when the last attempt to reach the broker succeeded."""
        return self._sender.is_connected

    def read_barcode(self, line: str) -> ItemBarcode:
        """Clean a scanned line and check that it is an item's barcode.

        Raises `BarcodeRefusedError` when the line is not a barcode or its check digit is wrong, and `PatronCardError`.
        """
        barcode = read_line(line, self.settings.scanner)
        pattern = self.settings.patron_card_pattern
        if pattern is not None and re.fullmatch(pattern, barcode):
            raise PatronCardError
        if self.settings.check_digit == "mod10":
            verify_check_digit(barcode)
        return ItemBarcode(barcode)

    def scan(self, line: str, *, returned_at: datetime | None = None, print_slip: bool | None = None) -> UUID:
        """Read a scanned line and send it. Errors are those of `read_barcode` and `send_scan`."""
        return self.send_scan(self.read_barcode(line), returned_at=returned_at, print_slip=print_slip)

    def send_scan(
        self, barcode: ItemBarcode, *, returned_at: datetime | None = None, print_slip: bool | None = None
    ) -> UUID:
        """Store a scan, hand it to the sender, and return its event id.

        Raises `JournalError` when the scan cannot be stored; then it is not sent either. An unreachable broker is not
        an error: the sender holds the scan and sends it later.
        """
        event = BarcodeScanned(
            **self._unsigned_header(),
            barcode=barcode,
            scanned_at=self._now(),
            returned_at=returned_at,
            print_slip=self.settings.print_slip if print_slip is None else print_slip,
        )
        return self._send(event, PROCESS_SCAN, barcode)

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
        """Return a request by its external identifier; return the event's id.

        Raises `JournalError` as `send_scan` does, and `pydantic.ValidationError` for a request or note that no message
        can carry.
        """
        request = request.strip()
        event = ReturnRequested(
            **self._unsigned_header(),
            request=request,
            requested_at=self._now(),
            note=note,
            print_slip=print_slip,
            returned_at=returned_at,
            override=override,
            resolution=resolution,
            force_partial=force_partial,
        )
        return self._send(event, PROCESS_RETURN, request)

    def send_event(self, kind: type[CirculationEvent], *, barcode: ItemBarcode | None = None, **fields: Any) -> UUID:
        """Send another circulation event, for example `ItemLoaned`; return its id. `fields` are the event's.

        Errors are those of `request_return`.
        """
        if barcode is not None:
            fields["barcode"] = barcode
        event = kind(**{**self._unsigned_header(), "at": self._now(), **fields})
        subject = barcode or fields.get("request") or fields.get("undoes") or fields.get("reprints")
        return self._send(event, TASKS[kind], str(subject))

    def wait(self, event_id: UUID, seconds: float) -> Reply | None:
        """Wait for the reply to an event; `None` when none arrives within `seconds`. It may still arrive later."""
        return self._notifier.wait(str(event_id), seconds)

    def replay(self) -> int:
        """Mark every unanswered event due now, oldest first; return their number."""
        return self._sender.replay()

    def _unsigned_header(self) -> dict[str, Any]:
        return {
            "event_id": self._new_id(),
            "station": self.settings.code,
            "sequence": 0,
            "signature": _UNSIGNED,
        }

    def _send(self, event: StationEvent, task: str, subject: str) -> UUID:
        """Store the event, then hand it to the sender: an event that is not on disk is never published."""
        now = self._now()
        encode = partial(_signed_json, event, self.settings.key.get_secret_value().encode())
        entry = self.journal.append(
            NewEvent(str(event.event_id), task, subject, encode), now, now + self._sender.retry_delay(1)
        )
        self._notifier.follow(entry.event_id)
        self._sender.enqueue(entry)
        return event.event_id


def _signed_json(event: StationEvent, key: bytes, sequence: int) -> str:
    """The JSON of `event` with its sequence number and signature: the bytes that every sending carries."""
    payload = event.model_dump(mode="json", exclude_none=True, exclude={"signature"}) | {"sequence": sequence}
    payload["signature"] = signing.sign(payload, key)
    return json.dumps(payload, ensure_ascii=False)
