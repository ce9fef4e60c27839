# SPDX-License-Identifier: Apache-2.0
"""The client that never loses a scan: kept on disk first, then sent, and asked again until it is answered.

A resend carries the same event id and the same bytes; the worker's inbox makes it harmless.
"""

import contextlib
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Literal, Self
from uuid import UUID

from uuid6 import uuid7

from schemas import desk_word, signing
from schemas.barcodes import clean
from schemas.cycle import ANSWERS, TASKS, CycleEvent, Reply, read_reply
from schemas.events import BarcodeScanned, Override, ReturnRequested, StationEvent
from schemas.replies import SET_APART, SlipNotice
from schemas.topology import PROCESS_RETURN, PROCESS_SCAN
from stations.following import Following
from stations.journal import HELD_AFTER, Entry, Journal
from stations.journal_file import JournalError
from stations.replaying import Progress, Replaying
from stations.settings import StationSettings
from stations.wire import Ear, Mouth, Saying

LONGEST_RESEND: Final = timedelta(seconds=30)
"""Longest wait between two sendings of one event."""
AFTER_AN_OUTAGE: Final = timedelta(seconds=1)
"""How soon a sending that failed is tried again."""

HELD_AT_ONCE: Final = 50
"""How many held events are claimed and said in one go."""
AHEAD: Final = 200
"""How many held events are said ahead of their answers, so that an outage's backlog does not crowd other desks out."""

_UNSIGNED = "0" * 64
_LOOK_SECONDS = 0.1


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
        self.journal = Journal(settings.journal_file, settings.code, settings.bounds)
        self._now = now
        self._new_id = new_id
        self._mouth = Mouth(settings.broker_url.get_secret_value(), settings.code)
        self._to_say: deque[Entry] = deque()
        self._news = threading.Condition()
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._reached = True
        self._try_again_at = 0.0
        self._ahead = 0
        """Held events that were said and not answered, about; while there may be more of them."""
        self._following = Following(
            self.journal, on_reply or (lambda _entry, _reply: None), on_slip or (lambda _entry: None)
        )
        self._replaying = Replaying(self.journal, on_progress or (lambda _progress: None))
        self._threads = [
            threading.Thread(target=self._speak, name="bookdrop-mouth", daemon=True),
            threading.Thread(target=self._listen, name="bookdrop-ear", daemon=True),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._wanted.set()
        for thread in self._threads:
            thread.join()
        self._mouth.close()
        self.journal.close()

    @property
    def is_reached(self) -> bool:
        """Whether the broker could be spoken to the last time it was tried."""
        return self._reached

    def scan(self, barcode: str, *, returned_at: datetime | None = None, print_slip: bool | None = None) -> UUID:
        """Take a scanned line, to be sent at once; give the event's id.

        Raises `BarcodeRefusedError` when the line is no barcode, `PatronCardError`, and `JournalError` when it
        cannot be kept; then nothing is sent. A broker that is away is no error: the scan is held and sent later.
        """
        cleaned = self._cleaned(barcode)
        return self._take(
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
        return self._take(
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

    def act(self, kind: type[CycleEvent], **fields: Any) -> UUID:
        """Say an event of the cycle around the Return, such as `ItemLoaned`; give the event's id.

        `fields` are the event's own. Errors are those of `scan` and `request_return`.
        """
        subject = str(fields.get("request") or fields.get("undoes") or fields.get("reprints"))
        if "barcode" in fields:
            fields["barcode"] = subject = self._cleaned(fields["barcode"])
        return self._take(
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

    def _cleaned(self, barcode: str) -> str:
        cleaned = clean(barcode, self.settings.scanner_prefix)
        pattern = self.settings.patron_card_pattern
        if pattern is not None and re.fullmatch(pattern, cleaned):
            raise PatronCardError
        return cleaned

    def wait(self, event_id: UUID, seconds: float) -> Reply | None:
        """Wait for the answer to an event; `None` when none came within `seconds`. It may still come."""
        deadline = time.monotonic() + seconds
        with self._news:
            while True:
                entry = self.journal.entry(str(event_id))
                if entry is not None and entry.reply is not None:
                    return read_reply(entry.reply)
                if (left := deadline - time.monotonic()) <= 0:
                    return None
                # The news of another process of this station comes through the journal, which does not wake us.
                self._news.wait(min(left, _LOOK_SECONDS))

    def _take(self, task: str, subject: str, build: Callable[[UUID, int], StationEvent]) -> UUID:
        event_id = self._new_id()

        def kept(sequence: int) -> tuple[str, str, str, str]:
            payload = build(event_id, sequence).model_dump(mode="json", exclude_none=True)
            del payload["signature"]
            payload["signature"] = signing.sign(payload, self.settings.key.get_secret_value().encode())
            return str(event_id), task, subject, json.dumps(payload, ensure_ascii=False)

        now = self._now()
        entry = self.journal.take(kept, now, now + self._wait_after(1))
        self._following.add(entry.event_id)
        self._to_say.append(entry)
        self._wanted.set()
        return event_id

    def _wait_after(self, attempts: int) -> timedelta:
        seconds = self.settings.resend_seconds * 2 ** min(attempts - 1, 6)
        return min(timedelta(seconds=seconds), LONGEST_RESEND)

    def replay(self) -> int:
        """Have everything without an answer be asked again now, in the order in which it was taken; give how many."""
        now = self._now()
        count = self.journal.wake(now, now)
        self._wanted.set()
        return count

    def _wait_of_held(self, attempts: int) -> timedelta:
        """In a long replay nobody stands there and waits: asking again soon would only make it longer."""
        return LONGEST_RESEND if self._replaying.total >= HELD_AT_ONCE else self._wait_after(attempts)

    def _speak(self) -> None:
        pruned_at = 0.0
        with contextlib.suppress(JournalError):  # what was left by an outage goes in its order
            self.journal.wake(self._now() - HELD_AFTER, self._now())
            self._replaying.begin()
        while not self._closing.is_set():
            self._wanted.wait(_LOOK_SECONDS)
            self._wanted.clear()
            try:
                if not self._comes_back():
                    self._say_all(self._fresh())
                    if self._reached:
                        self._replaying.look()
                        self._say_due()
                self._following.look()
                if time.monotonic() - pruned_at > 1:
                    pruned_at = time.monotonic()
                    self.journal.prune()
            except JournalError:
                # What was taken is on the disk; whoever scans next is told. Here there is nobody to tell.
                self._closing.wait(1.0)
        if self._reached:  # what was taken in the last moment; otherwise the journal holds it for the next start
            with contextlib.suppress(JournalError):
                self._say_all(self._fresh())

    def _comes_back(self) -> bool:
        """Whether the broker is away, or has just come back: then nothing is said before everything held is due."""
        if self._reached:
            return False
        if time.monotonic() >= self._try_again_at:
            try:
                self._mouth.reach()
            except Exception:  # noqa: BLE001 - whatever the transport raises: it is away still
                self._try_again_at = time.monotonic() + AFTER_AN_OUTAGE.total_seconds()
            else:
                self._reached = True
                self._wanted.set()
        fresh, now = self._fresh(), self._now()
        if self._reached:
            self.journal.wake(now, now)
            self._replaying.begin()
        elif fresh:
            self.journal.hold((entry.event_id for entry in fresh), now)
        return True

    def _say_due(self) -> None:
        """Say what is due. Of many held events the next ones go as answers come, not at the next look."""
        due = self.journal.due(self._now(), self._wait_of_held, HELD_AT_ONCE)
        self._say_all(due, again=1)
        with self._news:
            self._ahead = self._ahead + len(due) if len(due) == HELD_AT_ONCE and self._reached else 0
            if 0 < self._ahead < AHEAD:
                self._wanted.set()

    def _fresh(self) -> list[Entry]:
        return [self._to_say.popleft() for _ in range(len(self._to_say))]

    def _say_all(self, entries: list[Entry], again: int = 0) -> None:
        """Say `entries`; `again` is 1 when they are due although they were said, or tried to be, before."""
        if not entries:
            return
        now = self._now()
        held = self.journal.waiting(now)
        try:
            self._mouth.say(
                [
                    Saying(each.event_id, each.task, each.payload, desk_word.written(now, each.attempts + again, *held))
                    for each in entries
                ]
            )
            self._reached = True
        except Exception:  # noqa: BLE001 - whatever the transport raises: it is kept, and said again
            self._reached = False
            self._try_again_at = time.monotonic() + AFTER_AN_OUTAGE.total_seconds()
            self.journal.hold((entry.event_id for entry in entries), self._now())

    def _listen(self) -> None:
        url, code = self.settings.broker_url.get_secret_value(), self.settings.code
        while not self._closing.is_set():
            ear: Ear | None = None
            try:
                if self.journal.moved_to() is not None:  # the answers are for where it is now
                    self._closing.wait(1.0)
                    continue
                ear = Ear(url, code, self._heard)
                looked_at = time.monotonic()
                while not self._closing.is_set():
                    ear.listen(0.2, gather=self._ahead > 0)
                    if time.monotonic() - looked_at > 1:
                        looked_at = time.monotonic()
                        if self.journal.moved_to() is not None:
                            break
            except Exception:  # noqa: BLE001 - whatever the transport or the disk raises: anew, after a moment
                self._closing.wait(0.5)
            finally:
                if ear is not None:
                    ear.close()

    def _heard(self, bodies: Sequence[str]) -> None:
        """Keep answers in one write, then the words of slips; what cannot be read is asked again."""
        replies: dict[str, tuple[Reply, str]] = {}
        notices: list[SlipNotice] = []
        for body in bodies:
            with contextlib.suppress(ValueError):
                message: Any = json.loads(body)
                kind = message.get("type") if isinstance(message, dict) else None
                if kind in ANSWERS:
                    reply = read_reply(body)
                    known = replies.get(str(reply.event_id))
                    if known is None or _is_set_apart(known[0]):
                        replies[str(reply.event_id)] = (reply, body)
                elif kind == "bookdrop.slip-notice.v1":
                    notices.append(SlipNotice.model_validate(message))
        if replies:
            self._answered(replies)
        for notice in notices:
            if self.journal.note_slip(str(notice.event_id), notice.state, notice.message):
                self._following.slip(notice)

    def _answered(self, replies: Mapping[str, tuple[Reply, str]]) -> None:
        news = self.journal.answer(
            {event_id: body for event_id, (_, body) in replies.items()},
            self._now(),
            provisional={event_id for event_id, (reply, _) in replies.items() if _is_set_apart(reply)},
        )
        with self._news:
            self._news.notify_all()
            if self._ahead:
                was, self._ahead = self._ahead, max(self._ahead - len(replies), 0)
                if was > AHEAD - HELD_AT_ONCE >= self._ahead:
                    self._wanted.set()
        for event_id, (reply, _) in replies.items():
            if event_id in news:
                self._following.reply(reply)


def _is_set_apart(reply: Reply) -> bool:
    """Whether the answer is not the last word: the message was kept, and may be answered after all."""
    return reply.outcome == "refused" and reply.reason in SET_APART
