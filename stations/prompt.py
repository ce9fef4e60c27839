# SPDX-License-Identifier: Apache-2.0
"""The prompt: each line is a scan; the next line can be typed at once, and replies appear as they arrive."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, ParamSpec
from uuid import UUID

from pydantic import ValidationError

from schemas.barcodes import BarcodeRefusedError
from schemas.circulation_events import Reply, ReprintRequested, SlipSeen, UndoRequested
from schemas.slip_codes import parse_slip_code
from stations import messages
from stations.client import ItemBarcode, PatronCardError, StationClient
from stations.journal.events import Entry, last_returned
from stations.journal.file import JournalError
from stations.journal.monitor import JournalMonitor
from stations.journal.replay import Progress
from stations.messages import ScreenMessage
from stations.terminal import Screen

PACKING_SECONDS: Final = 60.0
"""Within this time after a slip's code, the next barcode is the item that the slip lies in."""
DOUBLE_TRIGGER_SECONDS: Final = 2.0
"""Within this time the same barcode again is the same scan."""
PENDING_SECONDS: Final = 1.5
"""After this time without a reply, a terminal shows a scan as pending."""
COUNT_REPLIES_FROM: Final = 10
"""From this number of held scans on, replies are counted instead of shown one by one; refusals are always shown."""

_P = ParamSpec("_P")


@dataclass
class _PendingEvent:
    subject: str
    since: float
    is_shown: bool = False


@dataclass
class ScanPrompt:
    """Reads lines and shows replies. Pass `on_reply`, `on_slip` and `on_progress` to the client given to `serve`."""

    screen: Screen
    now: Callable[[], datetime]
    shows_pending: bool
    """Show late replies as pending while scanning continues, as a terminal does; a pipe shows them at its end."""
    backdate: datetime | None = None
    not_stored: int = 0
    """Number of lines that the journal rejected."""
    _pending: dict[UUID, _PendingEvent] = field(default_factory=dict)
    _last_scan: tuple[str, float] = ("", 0.0)
    _packing: tuple[UUID, float] | None = None
    """The slip whose code was scanned last, and when; its item is expected next."""
    _replied_at: float = 0.0
    _is_replaying: bool = False
    """True while so many held scans are sent that their replies are counted."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._opened_at = self.now()

    def serve(self, client: StationClient, lines: Iterable[str]) -> None:
        """Process each line; return at the end of `lines` or at `:quit`."""
        ended = threading.Event()
        warnings = threading.Thread(target=self._show_warnings, args=(client, ended), daemon=True)
        if self.shows_pending:
            warnings.start()
        try:
            for line in lines:
                if line.lstrip().startswith(":"):
                    if self._run_command(client, line.strip()[1:].split()):
                        return
                else:
                    self._scan(client, line)
        finally:
            ended.set()
            if self.shows_pending:
                warnings.join()

    def wait_for_replies(self, client: StationClient, seconds: float) -> list[str]:
        """Wait until every event has its reply, or none has come for `seconds`; show and return what is pending."""
        self._replied_at = time.monotonic()
        while self._pending and time.monotonic() - self._replied_at < seconds:
            time.sleep(0.02)
        return self.show_pending(client)

    def show_pending(self, client: StationClient) -> list[str]:
        """Show and return the subjects that have no reply."""
        with self._lock:
            subjects = [event.subject for event in self._pending.values()]
        for subject in subjects:
            self.screen.show(messages.pending(subject, is_connected=client.is_connected))
        return subjects

    def on_reply(self, entry: Entry, reply: Reply) -> None:
        """Show a reply to a scan of this prompt or of an earlier process, but not of a command run beside it."""
        with self._lock:  # `_send` holds it until the event is in `_pending`
            is_ours = reply.event_id in self._pending or entry.made_at < self._opened_at
            is_counted = self._is_replaying and entry.held and reply.outcome != "refused"
        if is_ours and not is_counted:
            self.screen.show(messages.format_reply(reply, entry.subject))
        with self._lock:
            self._pending.pop(reply.event_id, None)
            self._replied_at = time.monotonic()

    def on_slip(self, entry: Entry) -> None:
        """Show the state of a slip."""
        self.screen.show(messages.format_slip(entry))

    def on_progress(self, progress: Progress) -> None:
        """Show the progress of held scans at a terminal; show at the end which were refused, in a pipe as well."""
        is_long = self.shows_pending and progress.total >= COUNT_REPLIES_FROM
        with self._lock:
            self._is_replaying = is_long and not progress.is_complete
            self._replied_at = time.monotonic()
        if progress.exceptions or is_long:
            self.screen.show(messages.format_progress(progress))

    def _scan(self, client: StationClient, line: str) -> None:
        """Read one line, and send it unless it is a slip's code or the same scan again."""
        try:
            barcode = client.read_barcode(line)
        except (BarcodeRefusedError, PatronCardError) as error:
            self.screen.show(messages.refused_line(line, error))
            return
        now = time.monotonic()
        packing, self._packing = self._packing, None
        if (slip := parse_slip_code(barcode)) is not None:
            self._packing = (slip, now)
            self.screen.show(messages.slip_scanned())
        elif packing is not None and now - packing[1] <= PACKING_SECONDS:
            self._send(barcode, client.send_event, SlipSeen, slip=packing[0], barcode=barcode)
        elif self._is_double_trigger(barcode, now):
            self.screen.show(messages.duplicate_scan(barcode))
        elif self._send(barcode, client.send_scan, barcode, returned_at=self.backdate):
            self._last_scan = (barcode, now)

    def _is_double_trigger(self, barcode: ItemBarcode, now: float) -> bool:
        last, at = self._last_scan
        return barcode == last and now - at < DOUBLE_TRIGGER_SECONDS

    def _send(self, subject: str, send: Callable[_P, UUID], *args: _P.args, **kwargs: _P.kwargs) -> bool:
        """Send one event and list it as pending; show why when it cannot be sent. Return True when it was sent."""
        try:
            with self._lock:
                self._pending[send(*args, **kwargs)] = _PendingEvent(subject, time.monotonic())
        except ValidationError:
            text = "That is not a request's identifier."
            self.screen.show(messages.refused_locally(messages.printable(subject), text))
        except JournalError as error:
            self.not_stored += 1
            self.screen.show(messages.not_taken(str(error)))
        else:
            return True
        return False

    def _show_warnings(self, client: StationClient, ended: threading.Event) -> None:
        """Show the journal's notices, and each scan whose reply is late, once."""
        monitor = JournalMonitor(client.journal, client.settings.unanswered_warning_after, self.now)
        while not ended.wait(0.1):
            with contextlib.suppress(JournalError):  # the journal cannot be read: the next scan reports it
                for notice in monitor.poll():
                    self.screen.show(messages.format_notice(notice))
            with self._lock:
                late = [
                    event
                    for event in self._pending.values()
                    if not event.is_shown and time.monotonic() - event.since > PENDING_SECONDS
                ]
                for event in late:
                    event.is_shown = True
                    self.screen.show(messages.pending(event.subject, is_connected=client.is_connected))

    def _run_command(self, client: StationClient, parts: list[str]) -> bool:
        """Run what was typed after a colon; return True when the prompt is to be left."""
        match parts:
            case ["quit" | "q"]:
                return True
            case ["recent"]:
                self._list(client.journal.recent, "Nothing was scanned here yet.")
            case ["pending"]:
                self._list(client.journal.unanswered, "Every scan has a reply.")
            case ["exceptions"]:
                self._list(client.journal.exceptions, "No held scan was refused, or all of them were seen to.")
            case ["exceptions", "done"]:
                self._acknowledge_exceptions(client)
            case ["cancel"]:
                self._packing = None
                self.screen.show(ScreenMessage(("The next barcode is a Return again.",)))
            case ["backdate", *when] if when:
                self._set_backdate(" ".join(when))
            case _ if not self._run_event_command(client, parts):
                self.screen.show(ScreenMessage(messages.HELP))
        return False

    def _run_event_command(self, client: StationClient, parts: list[str]) -> bool:
        """Send the event that was typed after a colon; return False when it was none."""
        match parts:
            case ["return", request]:
                self._send(request, client.request_return, request, returned_at=self.backdate)
            case ["undo"]:
                if (event_id := self._last_returned(client, ":undo")) is not None:
                    self._send("undo", client.send_event, UndoRequested, undoes=event_id)
            case ["undo", request, *words]:
                reason = " ".join(words) or None
                self._send(request, client.send_event, UndoRequested, request=request, reason=reason)
            case ["reprint", *words]:
                if (event_id := self._last_returned(client, ":reprint")) is not None:
                    reason = " ".join(words) or "requested at the station"
                    self._send("reprint", client.send_event, ReprintRequested, reprints=event_id, reason=reason)
            case _:
                return False
        return True

    def _last_returned(self, client: StationClient, command: str) -> UUID | None:
        """The last Return of this station; show why when there is none for `command`."""
        try:
            event_id = last_returned(client.journal)
        except JournalError as error:
            self.screen.show(ScreenMessage((str(error),)))
            return None
        if event_id is None:
            self.screen.show(messages.refused_locally(command, messages.NOTHING_RETURNED))
        return event_id

    def _set_backdate(self, when: str) -> None:
        if when == "off":
            self.backdate = None
            self.screen.set_banner("")
            self.screen.show(ScreenMessage(("Backdate off: items come back now.",)))
            return
        try:
            moment = datetime.fromisoformat(when).astimezone()
        except (ValueError, OverflowError):
            moment = None
        if moment is None or moment > self.now():
            why = "That lies in the future." if moment else "Write it as :backdate 2026-11-22 18:00, or :backdate off."
            self.screen.show(messages.refused_locally(":backdate", f"{why} Nothing was changed."))
            return
        self.backdate = moment
        self.screen.set_banner(f"[BACKDATED {moment:%Y-%m-%d %H:%M}] ")
        self.screen.show(ScreenMessage((f"Backdate on: what is scanned now came back {moment:%Y-%m-%d %H:%M}.",)))

    def _acknowledge_exceptions(self, client: StationClient) -> None:
        try:
            found = client.journal.exceptions()
            count = client.journal.acknowledge_exceptions((entry.event_id for entry in found), self.now())
        except JournalError as error:
            self.screen.show(ScreenMessage((str(error),)))
        else:
            self.screen.show(ScreenMessage((f"Seen to: {count}. They stay in the journal.",)))

    def _list(self, query: Callable[[], list[Entry]], empty_text: str) -> None:
        try:
            lines = tuple(messages.format_entry(entry) for entry in query()) or (empty_text,)
        except JournalError as error:
            lines = (str(error),)
        self.screen.show(ScreenMessage(lines))
