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
from stations.journal.monitor import JournalWatch
from stations.journal.replay import Progress
from stations.terminal import Screen

PACKING_SECONDS: Final = 60.0
"""So long after a slip's code the next barcode is taken for the item that it lies in."""
DOUBLE_TRIGGER: Final = 2.0
"""The same barcode again within so many seconds is one scan."""
PENDING_AFTER: Final = 1.5
"""After so many seconds without an answer a desk at a terminal says that a scan is pending."""


SHOWN_SINGLY: Final = 10
"""From so many held scans on their answers are counted and not shown one by one; refusals are shown always."""


@dataclass
class _Waiting:
    subject: str
    since: float
    is_told: bool = False


@dataclass
class ScanPrompt:
    """Lines in, words out. `on_reply`, `on_slip` and `on_progress` are the callbacks of the client that is given to `serve`."""

    screen: Screen
    now: Callable[[], datetime]
    tells_pending: bool
    """Whether a late answer is announced while scanning goes on; a pipe is told at its end."""
    backdate: datetime | None = None
    not_written: int = 0
    """How many lines the journal could not keep."""
    _waiting: dict[UUID, _Waiting] = field(default_factory=dict)
    _last: tuple[str, float] = ("", 0.0)
    _slip: tuple[UUID, float] | None = None
    """A slip whose code was scanned, and when: its item comes next."""
    _heard_at: float = 0.0
    _replaying: bool = False
    """Whether so many held scans go out that their answers are not shown one by one."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._opened_at = self.now()

    def serve(self, client: StationClient, lines: Iterable[str]) -> None:
        """Take each line. Returns at the end of `lines` or at `:quit`."""
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(client, ended), daemon=True)
        if self.tells_pending:
            watch.start()
        try:
            for line in lines:
                if line.lstrip().startswith(":"):
                    if self._command(client, line.strip()[1:].split()):
                        return
                else:
                    self._scan(client, line)
        finally:
            ended.set()
            if self.tells_pending:
                watch.join()

    def finish(self, client: StationClient, seconds: float) -> list[str]:
        """Wait for the answers that are still out, until none came for `seconds`; show and give what has none."""
        self._heard_at = time.monotonic()
        while self._waiting and time.monotonic() - self._heard_at < seconds:
            time.sleep(0.02)
        return self.still_pending(client)

    def still_pending(self, client: StationClient) -> list[str]:
        """Show and give what has no answer."""
        with self._lock:
            left = [waiting.subject for waiting in self._waiting.values()]
        for subject in left:
            self.screen.show(messages.pending(subject, is_connected=client.is_connected))
        return left

    def on_reply(self, entry: Entry, reply: Reply) -> None:
        """Show an answer to a scan of this desk, or of an earlier one; not those of a command beside it."""
        with self._lock:  # `_scan` holds it until the scan is noted
            is_ours = reply.event_id in self._waiting or entry.made_at < self._opened_at
            is_quiet = self._replaying and entry.held and reply.outcome != "refused"
        if is_ours and not is_quiet:
            self.screen.show(messages.format_reply(reply, entry.subject))
        with self._lock:
            self._waiting.pop(reply.event_id, None)
            self._heard_at = time.monotonic()

    def on_slip(self, entry: Entry) -> None:
        """Show what became of a slip."""
        self.screen.show(messages.format_slip(entry))

    def on_progress(self, progress: Progress) -> None:
        """Show how far held scans are, at a terminal; at the end which were refused, everywhere."""
        with self._lock:
            self._replaying = self.tells_pending and not progress.is_over and progress.total >= SHOWN_SINGLY
            self._heard_at = time.monotonic()
        if progress.exceptions or (self.tells_pending and progress.total >= SHOWN_SINGLY):
            self.screen.show(messages.replaying(progress))

    def _scan(self, client: StationClient, line: str) -> None:
        try:
            barcode = clean(line, client.settings.scanner_prefix)
        except BarcodeRefusedError as error:
            shown = (
                messages.hint()
                if error.reason == "empty"
                else messages.refused_here(messages.printable(line), str(error))
            )
            self.screen.show(shown)
            return
        began = time.monotonic()
        if self._packs(client, barcode, began):
            return
        if self._last[0] == barcode and began - self._last[1] < DOUBLE_TRIGGER:
            self.screen.show(messages.duplicate_scan(barcode))
            return
        if self._take(barcode, lambda: client.scan(line, returned_at=self.backdate)):
            self._last = (barcode, began)

    def _packs(self, client: StationClient, barcode: str, now: float) -> bool:
        """Packing: a slip's code and then its item's barcode are one event; tell whether this line was part of it."""
        slip = slip_of(barcode)
        if slip is not None:
            self._slip = (slip, now)
            self.screen.show(messages.scan_its_item())
            return True
        if self._slip is None:
            return False
        (seen, since), self._slip = self._slip, None
        if now - since > PACKING_SECONDS:
            return False
        self._take(barcode, lambda: client.send_event(SlipSeen, slip=seen, barcode=barcode))
        return True

    def _reprint(self, client: StationClient, reason: str) -> None:
        """Another slip for the last Return of this desk."""
        try:
            event_id = last_returned(client.journal)
        except JournalError as error:
            self.screen.show(messages.ScreenMessage((str(error),)))
            return
        if event_id is None:
            self.screen.show(messages.refused_here(":reprint", "Nothing was returned at this desk. Nothing was sent."))
            return
        self._take("reprint", lambda: client.send_event(ReprintRequested, reprints=event_id, reason=reason))

    def _return(self, client: StationClient, request: str) -> None:
        self._take(request, lambda: client.request_return(request, returned_at=self.backdate))

    def _undo(self, client: StationClient, request: str | None, reason: str | None = None) -> None:
        """Take back a request's Return; without one, the last scan that this desk returned."""
        if request is not None:
            self._take(request, lambda: client.send_event(UndoRequested, request=request, reason=reason))
            return
        try:
            event_id = last_returned(client.journal)
        except JournalError as error:
            self.screen.show(messages.ScreenMessage((str(error),)))
            return
        if event_id is None:
            self.screen.show(messages.refused_here(":undo", "Nothing was returned at this desk. Nothing was sent."))
            return
        self._take("undo", lambda: client.send_event(UndoRequested, undoes=event_id))

    def _take(self, subject: str, take: Callable[[], UUID]) -> bool:
        try:
            with self._lock:
                event_id = take()
                self._waiting[event_id] = _Waiting(subject, time.monotonic())
        except PatronCardError as error:
            self.screen.show(messages.refused_here("", str(error)))
        except ValidationError:
            self.screen.show(messages.refused_here(messages.printable(subject), "That is no request's identifier."))
        except JournalError as error:
            self.not_written += 1
            self.screen.show(messages.not_written(str(error)))
        else:
            return True
        return False

    def _watch(self, client: StationClient, ended: threading.Event) -> None:
        """Say of each scan, once, that its answer is late; and of the journal what whoever scans must know before."""
        journal = JournalWatch(client.journal, client.settings.offline_after, self.now)
        while not ended.wait(0.1):
            with contextlib.suppress(JournalError):  # it cannot even be read: whoever scans next is told
                for shown in journal.look():
                    self.screen.show(shown)
            with self._lock:
                late = [
                    waiting
                    for waiting in self._waiting.values()
                    if not waiting.is_told and time.monotonic() - waiting.since > PENDING_AFTER
                ]
                for waiting in late:
                    waiting.is_told = True
                    self.screen.show(messages.pending(waiting.subject, is_connected=client.is_connected))

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
                self._tick_all(client)
            case ["cancel"]:
                self._slip = None
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
            self.screen.banner("")
            self.screen.show(messages.ScreenMessage(("Backdate off: items come back now.",)))
            return
        try:
            moment = datetime.fromisoformat(when).astimezone()
        except (ValueError, OverflowError):
            moment = None
        if moment is None or moment > self.now():
            why = "That lies in the future." if moment else "Write it as :backdate 2026-11-22 18:00, or :backdate off."
            self.screen.show(messages.refused_here(":backdate", f"{why} Nothing was changed."))
            return
        self.backdate = moment
        self.screen.banner(f"[BACKDATED {moment:%Y-%m-%d %H:%M}] ")
        self.screen.show(
            messages.ScreenMessage((f"Backdate on: what is scanned now came back {moment:%Y-%m-%d %H:%M}.",))
        )

    def _tick_all(self, client: StationClient) -> None:
        try:
            found = client.journal.exceptions()
            count = client.journal.acknowledge_exceptions((entry.event_id for entry in found), self.now())
        except JournalError as error:
            self.screen.show(messages.ScreenMessage((str(error),)))
        else:
            self.screen.show(messages.ScreenMessage((f"Seen to: {count}. They stay in the journal.",)))

    def _list(self, look: Callable[[], list[Entry]], nothing: str) -> None:
        try:
            shown = tuple(messages.format_entry(entry) for entry in look()) or (nothing,)
        except JournalError as error:
            shown = (str(error),)
        self.screen.show(messages.ScreenMessage(shown))
