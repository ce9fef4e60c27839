# SPDX-License-Identifier: Apache-2.0
"""A station process that scans a list of barcodes. Restarted after a kill, it continues where its journal ends.

It uses the program's `StationClient`. Every message from the broker is recorded in a file before the client receives
it, because the journal stores one reply to an event and the suite compares all of them.
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
from tests.fault.failpoints import Failpoints, isolate
from tests.library import KEY

FAILPOINTS = (
    "after the journal",
    "before publish",
    "after publish",
    "before the reply is written",
    "after the reply is written",
)
"""The failpoints of a station."""


@dataclass(frozen=True)
class Workload:
    """The scans of one station in a run, and its settings."""

    code: str
    barcodes: tuple[str, ...]
    pause: float
    """Longest pause between two scans, in seconds."""
    clock_off: float = 0.0
    """Seconds by which its clock is ahead."""
    retry_interval_seconds: float = 1.0
    resends: bool = True
    """Resend unanswered events. Without it a run shows that the broker alone redelivers a scan."""


@dataclass(frozen=True)
class Start:
    """The arguments of a station process."""

    workload: Workload
    broker_url: str
    folder: Path
    failpoints: Path

    @property
    def journal(self) -> Path:
        """The station's journal."""
        return self.folder / "journals" / self.workload.code / "journal"

    @property
    def received(self) -> Path:
        """The messages from its reply queue, one a line."""
        return self.folder / f"{self.workload.code}.received"


def run(start: Start) -> None:
    """Run the station in this forked process. It ends when every scan has its reply."""
    isolate(start.folder / f"{start.workload.code}.log", {})
    _wrap(Failpoints(start.failpoints), start)
    workload = start.workload
    settings = StationSettings(
        code=workload.code, key=KEY, broker_url=start.broker_url, journal=start.journal,
        retry_interval_seconds=workload.retry_interval_seconds, journal_min_free_mb=0,  # so that the write itself fails on a full disk
    )  # fmt: skip
    offset = timedelta(seconds=workload.clock_off)
    with StationClient(settings, now=lambda: datetime.now(UTC) + offset) as client:
        random_numbers = random.Random(workload.code)
        for barcode in workload.barcodes[count_events(start.journal) :]:
            while True:
                try:
                    client.scan(barcode)
                    break
                except JournalError:  # rejected: staff see that and scan again
                    time.sleep(0.2)
            time.sleep(random_numbers.random() * workload.pause)
        while _is_open(client):
            time.sleep(0.05)


def count_events(journal: Path) -> int:
    """The number of events in a journal."""
    if not journal.exists():
        return 0
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=10)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone():
            return 0  # the station is creating it, or was killed meanwhile
        count: int = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    return count


def _is_open(client: StationClient) -> bool:
    try:
        return bool(client.journal.unanswered())
    except JournalError:
        return True


def _wrap(failpoints: Failpoints, start: Start) -> None:
    code = start.workload.code
    journal: Any = Journal
    journal.append = failpoints.wrap(code, journal.append, None, "after the journal")
    journal.store_replies = failpoints.wrap(
        code, journal.store_replies, "before the reply is written", "after the reply is written"
    )
    publisher: Any = EventPublisher
    publisher.publish = failpoints.wrap(code, publisher.publish, "before publish", "after publish")
    if not start.workload.resends:
        sender: Any = EventSender
        sender._publish_due = lambda _self: None
    record = os.open(start.received, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    class RecordingConsumer(ReplyConsumer):
        """A consumer that records each message."""

        def __init__(self, url: str, station: str, on_messages: Any) -> None:
            def note(bodies: Sequence[str]) -> None:
                os.write(record, b"".join(body.encode() + b"\n" for body in bodies))
                on_messages(bodies)

            super().__init__(url, station, note)

    receiver: Any = stations.receiver
    receiver.ReplyConsumer = RecordingConsumer
