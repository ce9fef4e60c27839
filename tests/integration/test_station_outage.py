# SPDX-License-Identifier: Apache-2.0
"""A station without its network: held scans are sent in order, refusals are listed, and a journal can be moved."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from uuid6 import uuid7

from schemas.circulation_events import read_reply
from schemas.topology import PROCESS_SCAN
from stations.client import StationClient
from stations.journal.events import Journal, NewEvent
from stations.journal.file import JournalError
from stations.journal.replay import Progress
from stations.settings import StationSettings
from tests.polling import wait_until
from tests.scripted_worker import ScriptedWorker, reply_to
from tests.station_processes import StationTerminal, run_station

HOUR = timedelta(hours=1)
pytestmark = [pytest.mark.long, pytest.mark.thorough]


def hold(settings: StationSettings, *barcodes: str, ago: timedelta = timedelta(0)) -> None:
    """Scan while the broker is unavailable, and close the station."""
    with StationClient(settings, now=lambda: datetime.now(UTC) - ago) as client:
        for barcode in barcodes:
            client.scan(barcode)


@pytest.fixture
def journal(disconnected: StationSettings) -> Iterator[Journal]:
    """The station's journal."""
    opened = Journal(disconnected.journal_file, "main-desk-1")
    yield opened
    opened.close()


def test_held_scans_are_sent_in_order_with_their_times(
    scripted_worker: ScriptedWorker,
    disconnected: StationSettings,
    reconnect: Callable[[], None],
    journal: Journal,
) -> None:
    """However often they were tried, held scans are sent in order, each with the time of its scan."""
    barcodes = [f"A{number}" for number in range(230)]
    with StationClient(disconnected) as client:
        for barcode in barcodes[:-1]:
            client.scan(barcode)
        wait_until(lambda: not client.is_connected)
        client.scan(barcodes[-1])
        reconnect()
        wait_until(lambda: not journal.unanswered())

    first_seen = list(dict.fromkeys(event["barcode"] for event in scripted_worker.events))
    assert first_seen == barcodes
    times = {event["barcode"]: datetime.fromisoformat(event["scanned_at"]) for event in scripted_worker.events}
    for entry in journal.recent(300):
        assert abs(times[entry.subject] - entry.made_at) < timedelta(seconds=1)
        assert entry.reply is not None
        assert (read_reply(entry.reply).barcode, str(read_reply(entry.reply).event_id)) == (
            entry.subject,
            entry.event_id,
        )


def test_progress_counts_held_scans_and_lists_refusals(
    scripted_worker: ScriptedWorker,
    disconnected: StationSettings,
    reconnect: Callable[[], None],
) -> None:
    """While held scans are sent their number is reported; the last report lists the refused ones."""
    reported: list[Progress] = []
    with StationClient(disconnected, on_progress=reported.append) as client:
        for barcode in ("A1", "X2", "A3"):
            client.scan(barcode)
        wait_until(lambda: not client.is_connected)
        assert reported == []
        reconnect()
        wait_until(lambda: reported and reported[-1].is_complete)

    assert [entry.subject for entry in reported[-1].exceptions] == ["X2"]
    assert reported[-1].total == 3


def test_prompt_shows_progress_and_refusals(
    scripted_worker: ScriptedWorker,
    disconnected: StationSettings,
    reconnect: Callable[[], None],
) -> None:
    """Replies to many held scans are counted, not shown one by one; refusals are shown, and can be acknowledged."""
    terminal = StationTerminal(disconnected)
    terminal.wait_for("> ")
    for number in range(12):
        terminal.type(f"A{number}\r")
    terminal.type("X12\r")
    terminal.wait_for("PENDING  X12")
    reconnect()
    terminal.wait_for("HELD SCANS  all 13 done")
    terminal.wait_for("Refused: 1")
    terminal.type(":exceptions done\r")
    terminal.wait_for("Seen to: 1")
    terminal.type(":exceptions\r")
    terminal.wait_for("No held scan was refused")
    terminal.type("B1\r")
    terminal.wait_for("RETURNED  B1")
    terminal.type("\x04")

    assert terminal.end() == 0
    assert "RETURNED  A5" not in terminal.output
    assert "REFUSED  X12" in terminal.output
    terminal.close()


def test_prompt_warns_of_a_full_disk_before_a_scan(station_settings: StationSettings) -> None:
    """With too little space on the disk the prompt shows a warning; a scan is rejected, and the code is 4."""
    terminal = StationTerminal(station_settings, BOOKDROP_STATION_JOURNAL_MIN_FREE_MB="1000000000")
    terminal.wait_for("NOTHING CAN BE TAKEN")
    terminal.type("A1\r")
    terminal.wait_for("NOT TAKEN")
    terminal.type("\x04")

    assert terminal.end() == 4
    terminal.close()


def test_scan_beyond_the_journal_limit_is_rejected(disconnected: StationSettings, journal: Journal) -> None:
    """A scan beyond the limit ends with the cause and code 4, and is not stored."""
    hold(disconnected, "A1")

    done = run_station(disconnected, "scan", "A2", BOOKDROP_STATION_JOURNAL_MAX_UNANSWERED="1")

    assert done.returncode == 4
    assert "journal_max_unanswered" in done.stderr
    assert [entry.subject for entry in journal.recent()] == ["A1"]


def test_scan_without_a_reply_for_hours_is_reported(disconnected: StationSettings) -> None:
    """A scan without a reply for more than four hours is reported in the list and at the prompt."""
    hold(disconnected, "A1", ago=timedelta(hours=5))

    listed = run_station(disconnected, "journal", "list", "--json")
    without_warning = run_station(disconnected, "journal", "list", BOOKDROP_STATION_UNANSWERED_WARNING_HOURS="6")
    terminal = StationTerminal(disconnected)
    terminal.wait_for("NO REPLY SINCE")
    terminal.type(":quit\r")
    terminal.end()
    terminal.close()

    assert "NO REPLY SINCE" in listed.stderr
    assert json.loads(listed.stdout)["subject"] == "A1"
    assert "NO REPLY" not in without_warning.stderr


def test_replay_command_sends_held_scans(
    scripted_worker: ScriptedWorker, disconnected: StationSettings, reconnect: Callable[[], None]
) -> None:
    """A command sends the scans of a closed station, counts them, lists refusals, and has a code for each result."""
    hold(disconnected, "A1", "X2", "A3")
    without = run_station(disconnected, "journal", "replay", "--wait", "2")
    reconnect()
    done = run_station(disconnected, "journal", "replay", "--json")

    assert without.returncode == 3, without.stderr
    assert "pending: 3. The network is away" in without.stdout
    reported = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert (reported["held"], reported["answered"], reported["pending"]) == (3, 3, 0)
    assert [entry["subject"] for entry in reported["refused"]] == ["X2"]
    assert [event["barcode"] for event in scripted_worker.events] == ["A1", "X2", "A3"]


def test_exceptions_are_listed_until_they_are_acknowledged(
    scripted_worker: ScriptedWorker, disconnected: StationSettings, reconnect: Callable[[], None]
) -> None:
    """Refused held scans are listed, with code 1, until staff acknowledge them."""
    hold(disconnected, "A1", "X2", "X3")
    reconnect()
    run_station(disconnected, "journal", "replay")

    listed = run_station(disconnected, "journal", "exceptions", "--json")
    found = [json.loads(line) for line in listed.stdout.splitlines()]
    one = run_station(disconnected, "journal", "exceptions", "--done", found[0]["event_id"])
    wrong = run_station(disconnected, "journal", "exceptions", "--done", "nothing")
    rest = run_station(disconnected, "journal", "exceptions", "--all-done")

    assert (listed.returncode, [entry["subject"] for entry in found]) == (1, ["X2", "X3"])
    assert one.returncode == 1
    assert "X3" in one.stdout
    assert "X2" not in one.stdout
    assert (wrong.returncode, rest.returncode) == (1, 0)
    assert "Not on the list: 1" in wrong.stderr


def test_moved_journal_is_sent_by_the_other_machine(
    scripted_worker: ScriptedWorker,
    disconnected: StationSettings,
    station_settings: StationSettings,
    tmp_path: Path,
) -> None:
    """After export and import the held scans are sent by the other machine: same ids, same station, once."""
    hold(disconnected, "A1", "A2")
    target = station_settings.model_copy(update={"journal": tmp_path / "target.journal"})

    went = run_station(disconnected, "journal", "export", str(tmp_path / "stick"), "--json")
    came = run_station(target, "journal", "import", str(tmp_path / "stick"), "--json")
    sent = run_station(target, "journal", "replay")
    left = run_station(station_settings, "journal", "replay")
    scan = run_station(station_settings, "scan", "A3")
    listed = run_station(station_settings, "journal", "list", "--json")

    assert json.loads(went.stdout) == json.loads(came.stdout) == {"events": 2, "unanswered": 2}
    assert (sent.returncode, left.returncode, scan.returncode) == (0, 4, 4)
    assert "answered: 2" in sent.stdout
    assert "was moved to" in scan.stderr
    assert "was moved to" in listed.stderr
    ids = [json.loads(line)["event_id"] for line in listed.stdout.splitlines()]
    assert [event["event_id"] for event in scripted_worker.events] == ids
    assert {event["station"] for event in scripted_worker.events} == {"main-desk-1"}


def test_running_client_stops_after_its_journal_was_exported(
    scripted_worker: ScriptedWorker,
    station_settings: StationSettings,
    tmp_path: Path,
) -> None:
    """A running client accepts no scan, and leaves the replies to the machine that has the journal."""
    target = station_settings.model_copy(update={"journal": tmp_path / "target.journal", "retry_interval_seconds": 30})
    with StationClient(station_settings) as source:
        source.wait(source.scan("A1"), 60)
        run_station(station_settings, "journal", "export", str(tmp_path / "stick"))
        with pytest.raises(JournalError, match="was moved to"):
            source.scan("A2")
        run_station(target, "journal", "import", str(tmp_path / "stick"))
        time.sleep(2.5)  # an open station checks once a second whether its journal was exported
        with StationClient(target) as client:
            for number in range(10):
                client.scan(f"B{number}")
            wait_until(lambda: not client.journal.unanswered())

    barcodes = [event["barcode"] for event in scripted_worker.events]
    assert list(dict.fromkeys(barcodes)) == ["A1", *(f"B{number}" for number in range(10))]
    # An event whose reply was on its way may be resent. A client that still consumed would take half of the replies.
    assert len(barcodes) <= 12


def scan_of(barcode: str) -> NewEvent:
    """A scan for the journal, unsigned: the worker of these tests checks no signature."""
    event_id = str(uuid7())
    payload = json.dumps({"event_id": event_id, "barcode": barcode})
    return NewEvent(event_id, PROCESS_SCAN, barcode, lambda _sequence: payload)


def test_requested_replay_counts_every_held_event(
    scripted_worker: ScriptedWorker, station_settings: StationSettings
) -> None:
    """A replay requested while one is running starts the count again: never more events left than its total."""
    journal = Journal(station_settings.journal_file, station_settings.code)
    now = datetime.now(UTC)
    entries = [journal.append(scan_of(name), now, now + timedelta(hours=1)) for name in ("A1", "A2", "A3")]
    journal.hold([entries[-1].event_id], now)
    journal.close()
    scripted_worker.script = lambda _worker, _event: None
    retrying_soon = station_settings.model_copy(update={"retry_interval_seconds": 0.3})
    reported: list[Progress] = []
    with StationClient(retrying_soon, on_progress=reported.append) as client:
        wait_until(lambda: reported)
        assert client.replay() == 3
        wait_until(lambda: reported[-1].total == 3)
        scripted_worker.script = lambda worker, event: worker.send(reply_to(event))
        wait_until(lambda: reported[-1].is_complete)

    assert reported[0].total == 1
    assert all(0 <= progress.replied <= progress.total for progress in reported)


def test_copied_journal_sends_the_same_events(
    scripted_worker: ScriptedWorker,
    disconnected: StationSettings,
    station_settings: StationSettings,
    tmp_path: Path,
) -> None:
    """Two machines with a copy of one journal send the same ids and bytes, and both get replies."""
    hold(disconnected, "A1")
    shutil.copy(disconnected.journal_file, tmp_path / "copy.journal")
    source = station_settings.model_copy(update={"retry_interval_seconds": 0.1})
    target = source.model_copy(update={"journal": tmp_path / "copy.journal"})

    with StationClient(source) as one, StationClient(target) as other:
        wait_until(lambda: not one.journal.unanswered() and not other.journal.unanswered())

    bodies: dict[str, set[bytes]] = {}
    for event, body in zip(scripted_worker.events, scripted_worker.bodies, strict=True):
        bodies.setdefault(event["event_id"], set()).add(body)
    assert [len(same) for same in bodies.values()] == [1]


def test_later_reply_replaces_a_provisional_refusal(
    scripted_worker: ScriptedWorker,
    station_settings: StationSettings,
) -> None:
    """Refused because the station was unknown, then retried on the server: the second reply is reported and stored."""

    def twice(running: ScriptedWorker, event: dict[str, Any]) -> None:
        running.send(reply_to(event) | {"outcome": "refused", "reason": "unknown_station"})
        running.send(reply_to(event))

    scripted_worker.script = twice
    reported: list[str] = []
    with StationClient(station_settings, on_reply=lambda _, reply: reported.append(reply.outcome.value)) as client:
        event_id = client.scan("A1")
        wait_until(lambda: "returned" in reported)
        entry = client.journal.entry(str(event_id))

    assert reported[-1] == "returned"
    assert entry is not None
    assert read_reply(entry.reply or "").outcome == "returned"
