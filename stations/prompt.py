# SPDX-License-Identifier: Apache-2.0
"""The desk: each line is a scan; the prompt is ready again at once, and answers come when they come."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import ValidationError

from schemas.barcodes import BarcodeRefusedError, clean, slip_of
from schemas.circulation_events import Reply, ReprintRequested, SlipSeen, UndoRequested
from stations import messages
from stations.client import PatronCardError, StationClient
from stations.journal.events import Entry, last_returned
from stations.journal.file import JournalError
from stations.journal.monitor import JournalMonitor
from stations.journal.replay import Progress
from stations.terminal import Screen

PACKING_SECONDS: Final = 60.0
"""So long after a slip's code the next barcode is taken for the item that it lies in."""
DOUBLE_TRIGGER_SECONDS: Final = 2.0
"""The same barcode again within so many seconds is one scan."""
PENDING_SECONDS: Final = 1.5
"""After so many seconds without an answer a desk at a terminal says that a scan is pending."""


COUNT_REPLIES_FROM: Final = 10
"""From so many held scans on their answers are counted and not shown one by one; refusals are shown always."""


@dataclass
class _PendingEvent:
    subject: str
    since: float
    is_shown: bool = False


@dataclass
class ScanPrompt:
    """Lines in, words out. `on_reply`, `on_slip` and `on_progress` are the callbacks of the client that is given to `serve`."""

    screen: Screen
    now: Callable[[], datetime]
    shows_pending: bool
    """Whether a late answer is announced while scanning goes on; a pipe is told at its end."""
    backdate: datetime | None = None
    not_stored: int = 0
    """How many lines the journal could not keep."""
    _pending: dict[UUID, _PendingEvent] = field(default_factory=dict)
    _last_scan: tuple[str, float] = ("", 0.0)
    _packing: tuple[UUID, float] | None = None
    """A slip whose code was scanned, and when: its item comes next."""
    _replied_at: float = 0.0
    _is_replaying: bool = False
    """Whether so many held scans go out that their answers are not shown one by one."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._opened_at = self.now()

    def serve(self, client: StationClient, lines: Iterable[str]) -> None:
        """Take each line. Returns at the end of `lines` or at `:quit`."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._show_warnings, args=(client, ended), daemon=True)
        if self.shows_pending:
            watcher.start()
        try:
            for line in lines:
                if line.lstrip().startswith(":"):
                    if self._command(client, line.strip()[1:].split()):
                        return
                else:
                    self._scan(client, line)
        finally:
            ended.set()
            if self.shows_pending:
                watcher.join()

    def wait_for_replies(self, client: StationClient, seconds: float) -> list[str]:
        """Wait for the answers that are still out, until none came for `seconds`; show and give what has none."""
        self._replied_at = time.monotonic()
        while self._pending and time.monotonic() - self._replied_at < seconds:
            time.sleep(0.02)
        return self.show_pending(client)

    def show_pending(self, client: StationClient) -> list[str]:
        """Show and give what has no answer."""
        with self._lock:
            left = [event.subject for event in self._pending.values()]
        for subject in left:
            self.screen.show(messages.pending(subject, is_connected=client.is_connected))
        return left

    def on_reply(self, entry: Entry, reply: Reply) -> None:
        """Show an answer to a scan of this desk, or of an earlier one; not those of a command beside it."""
        with self._lock:  # `_scan` holds it until the scan is noted
            is_ours = reply.event_id in self._pending or entry.made_at < self._opened_at
            is_quiet = self._is_replaying and entry.held and reply.outcome != "refused"
        if is_ours and not is_quiet:
            self.screen.show(messages.format_reply(reply, entry.subject))
        with self._lock:
            self._pending.pop(reply.event_id, None)
            self._replied_at = time.monotonic()

    def on_slip(self, entry: Entry) -> None:
        """Show what became of a slip."""
        self.screen.show(messages.format_slip(entry))

    def on_progress(self, progress: Progress) -> None:
        """Show how far held scans are, at a terminal; at the end which were refused, everywhere."""
        with self._lock:
            self._is_replaying = (
                self.shows_pending and not progress.is_complete and progress.total >= COUNT_REPLIES_FROM
            )
            self._replied_at = time.monotonic()
        if progress.exceptions or (self.shows_pending and progress.total >= COUNT_REPLIES_FROM):
            self.screen.show(messages.format_progress(progress))

    def _scan(self, client: StationClient, line: str) -> None:
        try:
            barcode = clean(line, client.settings.scanner_prefix)
        except BarcodeRefusedError as error:
            shown = (
                messages.empty_line()
                if error.reason == "empty"
                else messages.refused_locally(messages.printable(line), str(error))
            )
            self.screen.show(shown)
            return
        scanned_at = time.monotonic()
        if self._handle_packing(client, barcode, scanned_at):
            return
        if self._last_scan[0] == barcode and scanned_at - self._last_scan[1] < DOUBLE_TRIGGER_SECONDS:
            self.screen.show(messages.duplicate_scan(barcode))
            return
        if self._send(barcode, lambda: client.scan(line, returned_at=self.backdate)):
            self._last_scan = (barcode, scanned_at)

    def _handle_packing(self, client: StationClient, barcode: str, now: float) -> bool:
        """Packing: a slip's code and then its item's barcode are one event; tell whether this line was part of it."""
        slip = slip_of(barcode)
        if slip is not None:
            self._packing = (slip, now)
            self.screen.show(messages.slip_scanned())
            return True
        if self._packing is None:
            return False
        (seen, since), self._packing = self._packing, None
        if now - since > PACKING_SECONDS:
            return False
        self._send(barcode, lambda: client.send_event(SlipSeen, slip=seen, barcode=barcode))
        return True

    def _reprint(self, client: StationClient, reason: str) -> None:
        """Another slip for the last Return of this desk."""
        try:
            event_id = last_returned(client.journal)
        except JournalError as error:
            self.screen.show(messages.ScreenMessage((str(error),)))
            return
        if event_id is None:
            self.screen.show(
                messages.refused_locally(":reprint", "Nothing was returned at this desk. Nothing was sent.")
            )
            return
        self._send("reprint", lambda: client.send_event(ReprintRequested, reprints=event_id, reason=reason))

    def _return(self, client: StationClient, request: str) -> None:
        self._send(request, lambda: client.request_return(request, returned_at=self.backdate))

    def _undo(self, client: StationClient, request: str | None, reason: str | None = None) -> None:
        """Take back a request's Return; without one, the last scan that this desk returned."""
        if request is not None:
            self._send(request, lambda: client.send_event(UndoRequested, request=request, reason=reason))
            return
        try:
            event_id = last_returned(client.journal)
        except JournalError as error:
            self.screen.show(messages.ScreenMessage((str(error),)))
            return
        if event_id is None:
            self.screen.show(messages.refused_locally(":undo", "Nothing was returned at this desk. Nothing was sent."))
            return
        self._send("undo", lambda: client.send_event(UndoRequested, undoes=event_id))

    def _send(self, subject: str, send: Callable[[], UUID]) -> bool:
        try:
            with self._lock:
                event_id = send()
                self._pending[event_id] = _PendingEvent(subject, time.monotonic())
        except PatronCardError as error:
            self.screen.show(messages.refused_locally("", str(error)))
        except ValidationError:
            self.screen.show(messages.refused_locally(messages.printable(subject), "That is no request's identifier."))
        except JournalError as error:
            self.not_stored += 1
            self.screen.show(messages.not_taken(str(error)))
        else:
            return True
        return False

    def _show_warnings(self, client: StationClient, ended: threading.Event) -> None:
        """Say of each scan, once, that its answer is late; and of the journal what whoever scans must know before."""
        monitor = JournalMonitor(client.journal, client.settings.unanswered_warning_after, self.now)
        while not ended.wait(0.1):
            with contextlib.suppress(JournalError):  # it cannot even be read: whoever scans next is told
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

    def _command(self, client: StationClient, parts: list[str]) -> bool:
        """Do what was typed after a colon; tell whether the desk is to be left."""
        match parts:
            case ["quit" | "q"]:
                return True
            case ["recent"]:
                self._list(client.journal.recent, "Nothing was scanned here yet.")
            case ["pending"]:
                self._list(client.journal.unanswered, "Everything is answered.")
            case ["exceptions"]:
                self._list(client.journal.exceptions, "No held scan was refused, or all of them were seen to.")
            case ["exceptions", "done"]:
                self._acknowledge_exceptions(client)
            case ["cancel"]:
                self._packing = None
                self.screen.show(messages.ScreenMessage(("The next barcode is a Return again.",)))
            case ["backdate", *when] if when:
                self._set_backdate(" ".join(when))
            case _ if not self._run_event_command(client, parts):
                self.screen.show(messages.ScreenMessage(messages.HELP))
        return False

    def _run_event_command(self, client: StationClient, parts: list[str]) -> bool:
        """Say the event that was typed after a colon; tell whether it was one."""
        match parts:
            case ["return", request]:
                self._return(client, request)
            case ["undo"]:
                self._undo(client, None)
            case ["undo", request, *reason]:
                self._undo(client, request, " ".join(reason) or None)
            case ["reprint", *reason]:
                self._reprint(client, " ".join(reason) or "asked for at the desk")
            case _:
                return False
        return True

    def _set_backdate(self, when: str) -> None:
        if when == "off":
            self.backdate = None
            self.screen.set_banner("")
            self.screen.show(messages.ScreenMessage(("Backdate off: items come back now.",)))
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
        self.screen.show(
            messages.ScreenMessage((f"Backdate on: what is scanned now came back {moment:%Y-%m-%d %H:%M}.",))
        )

    def _acknowledge_exceptions(self, client: StationClient) -> None:
        try:
            found = client.journal.exceptions()
            count = client.journal.acknowledge_exceptions((entry.event_id for entry in found), self.now())
        except JournalError as error:
            self.screen.show(messages.ScreenMessage((str(error),)))
        else:
            self.screen.show(messages.ScreenMessage((f"Seen to: {count}. They stay in the journal.",)))

    def _list(self, query: Callable[[], list[Entry]], empty_text: str) -> None:
        try:
            shown = tuple(messages.format_entry(entry) for entry in query()) or (empty_text,)
        except JournalError as error:
            shown = (str(error),)
        self.screen.show(messages.ScreenMessage(shown))
