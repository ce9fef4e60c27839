# SPDX-License-Identifier: Apache-2.0
"""A station that works through its list of barcodes, whatever happens to it: killed, it goes on where its journal ends.

It is the program's own `StationClient`. What comes to it from the broker is noted in a file before the client sees it,
so that replies can be compared that the journal, rightly, does not keep.
"""

import os
import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import stations.receiver
from stations.client import StationClient
from stations.journal.events import Journal
from stations.journal.file import JournalError
from stations.sender import EventSender
from stations.settings import StationSettings
from stations.transport import EventPublisher, ReplyConsumer
from tests.fault.arming import Arms, become
from tests.library import KEY

POINTS = (
    "after the journal",
    "before publish",
    "after publish",
    "before the reply is written",
    "after the reply is written",
)
"""Where a station can die."""


@dataclass(frozen=True)
class Shift:
    """What one station does in a run, and how."""

    code: str
    barcodes: tuple[str, ...]
    pause: float
    """Longest pause between two scans, in seconds."""
    clock_off: float = 0.0
    """How far its clock is ahead, in seconds."""
    retry_interval_seconds: float = 1.0
    asks_again: bool = True
    """Whether it resends what is not answered. One that does not tells whether the broker alone brings a scan back."""


@dataclass(frozen=True)
class Start:
    """What a station process is started with."""

    shift: Shift
    broker_url: str
    folder: Path
    arms: Path

    @property
    def journal(self) -> Path:
        """Its journal."""
        return self.folder / "journals" / self.shift.code / "journal"

    @property
    def heard(self) -> Path:
        """What came on its reply queue, a message a line."""
        return self.folder / f"{self.shift.code}.heard"


def run(start: Start) -> None:
    """Be the station, in this forked process. Ends well when every scan is answered."""
    become(start.folder / f"{start.shift.code}.log", {})
    _wrap(Arms(start.arms), start)
    shift = start.shift
    settings = StationSettings(
        code=shift.code, key=KEY, broker_url=start.broker_url, journal=start.journal,
        retry_interval_seconds=shift.retry_interval_seconds, journal_min_free_mb=0,  # it is to find out by itself that the disk is full
    )  # fmt: skip
    ahead = timedelta(seconds=shift.clock_off)
    with StationClient(settings, now=lambda: datetime.now(UTC) + ahead) as client:
        dice = random.Random(shift.code)
        for barcode in shift.barcodes[taken(start.journal) :]:
            while True:
                try:
                    client.scan(barcode)
                    break
                except JournalError:  # not taken: told to staff, who scan again
                    time.sleep(0.2)
            time.sleep(dice.random() * shift.pause)
        while _is_open(client):
            time.sleep(0.05)


def taken(journal: Path) -> int:
    """How many scans the journal holds."""
    if not journal.exists():
        return 0
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=10)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone():
            return 0  # the station is just making it, or died of it
        count: int = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    return count


def _is_open(client: StationClient) -> bool:
    try:
        return bool(client.journal.unanswered())
    except JournalError:
        return True


def _wrap(arms: Arms, start: Start) -> None:
    code = start.shift.code
    journal: Any = Journal
    journal.append = arms.around(code, journal.append, None, "after the journal")
    journal.store_replies = arms.around(
        code, journal.store_replies, "before the reply is written", "after the reply is written"
    )
    mouth: Any = EventPublisher
    mouth.publish = arms.around(code, mouth.publish, "before publish", "after publish")
    if not start.shift.asks_again:
        speaking: Any = EventSender
        speaking._publish_due = lambda _self: None
    heard = os.open(start.heard, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    class NotingEar(ReplyConsumer):
        """An ear that notes what it hears."""

        def __init__(self, url: str, station: str, hear: Any) -> None:
            def note(bodies: Sequence[str]) -> None:
                os.write(heard, b"".join(body.encode() + b"\n" for body in bodies))
                hear(bodies)

            super().__init__(url, station, note)

    receiver: Any = stations.receiver
    receiver.ReplyConsumer = NotingEar
