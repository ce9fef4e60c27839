# SPDX-License-Identifier: Apache-2.0
"""A station's client over a real broker; a consumer in the test plays the worker."""

import json
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from schemas import signing
from schemas.replies import Outcome
from schemas.task_message import task_body
from schemas.topology import PROCESS_RETURN, PROCESS_SCAN
from stations.client import PatronCardError, StationClient
from stations.journal.file import JournalError
from stations.settings import StationSettings
from tests.library import KEY
from tests.polling import wait_until
from tests.scripted_worker import ScriptedWorker, reply_to
from tests.station_processes import StationTerminal, run_station
from tests.valkey import ValkeyServer

CODE = "main-desk-1"


def asking_soon(station_settings: StationSettings) -> StationSettings:
    return station_settings.model_copy(update={"retry_interval_seconds": 0.3})


def test_a_scan_is_signed_sent_and_answered(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """The worker gets a signed task message with the reply queue; the desk gets the answer's words."""
    with StationClient(station_settings) as client:
        event_id = client.scan(" 00031000000170\r\n")
        reply = client.wait(event_id, 60)

    assert reply is not None
    assert reply.message == "The item's destination is Riverside University Library"
    [event] = scripted_worker.events
    assert signing.verify(event, KEY.encode())
    assert (event["barcode"], event["sequence"], event["print_slip"]) == ("00031000000170", 1, True)
    assert scripted_worker.bodies == [task_body(json.dumps(event)).encode()]
    [message] = scripted_worker.messages
    assert message.headers["task"] == PROCESS_SCAN
    assert message.properties["correlation_id"] == message.headers["id"] == str(event_id)
    assert message.properties["reply_to"] == f"reply.{CODE}"


def test_a_return_from_the_request(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """Return on a request carries the note and wants no slip unless asked for one."""
    with StationClient(station_settings) as client:
        reply = client.wait(client.request_return("BR-00017", note="left in the reading room"), 60)

    assert reply is not None
    assert reply.request == "BR-00017"
    [event] = scripted_worker.events
    assert (event["print_slip"], event["note"]) == (False, "left in the reading room")
    assert scripted_worker.messages[0].headers["task"] == PROCESS_RETURN


def test_a_lost_reply_is_asked_for_with_the_same_bytes(
    scripted_worker: ScriptedWorker, station_settings: StationSettings
) -> None:
    """A worker that does not answer is asked again: the same id, the same bytes, until the answer comes."""
    scripted_worker.script = lambda w, event: w.send(reply_to(event)) if len(w.bodies) == 3 else None

    with StationClient(asking_soon(station_settings)) as client:
        reply = client.wait(client.scan("31000000170"), 60)

    assert reply is not None
    assert len(scripted_worker.bodies) == 3
    assert len(set(scripted_worker.bodies)) == 1


def test_answers_in_another_order(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """Each answer finds its scan, in whatever order they come, and is told once."""
    held: list[dict[str, Any]] = []
    told: list[tuple[str, str]] = []

    def script(w: ScriptedWorker, event: dict[str, Any]) -> None:
        held.append(event)
        if len({e["event_id"] for e in held}) == 3:
            for one in reversed(held):
                w.send(reply_to(one))
                w.send(reply_to(one))

    scripted_worker.script = script
    with StationClient(
        station_settings,
        on_reply=lambda entry, reply: told.append((entry.subject, reply.barcode or "")),
    ) as client:
        ids = [client.scan(barcode) for barcode in ("A1", "X2", "A3")]
        outcomes = [reply.outcome for event_id in ids if (reply := client.wait(event_id, 60))]
        wait_until(lambda: len(told) == 3)

    assert outcomes == [Outcome.RETURNED, Outcome.REFUSED, Outcome.RETURNED]
    assert told == [("A3", "A3"), ("X2", "X2"), ("A1", "A1")]


def test_the_word_of_a_slip(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """What became of the slip is told and kept."""
    told: list[str | None] = []
    notice = {"type": "bookdrop.slip-notice.v1", "job_id": "01890a5d-ac96-774b-bcce-b302099a8057", "state": "done"}

    def script(w: ScriptedWorker, event: dict[str, Any]) -> None:
        w.send(reply_to(event))
        w.send({**notice, "event_id": event["event_id"], "message": "Slip sent", "at": datetime.now(UTC).isoformat()})

    scripted_worker.script = script
    with StationClient(station_settings, on_slip=lambda entry: told.append(entry.slip_message)) as client:
        event_id = client.scan("A1")
        wait_until(lambda: told)
        entry = client.journal.entry(str(event_id))

    assert told == ["Slip sent"]
    assert entry is not None
    assert entry.slip_state == "done"


def test_two_clients_of_one_station(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """Whoever of two hears an answer, the one that asked gets it, and is told once; numbers never repeat."""
    told: dict[str, list[str]] = {"first": [], "second": []}
    with (
        StationClient(station_settings, on_reply=lambda entry, _: told["first"].append(entry.subject)) as first,
        StationClient(station_settings, on_reply=lambda entry, _: told["second"].append(entry.subject)) as second,
    ):
        ids = [(client, client.scan(f"{name}{n}")) for n in range(20) for name, client in (("F", first), ("S", second))]
        replies = [client.wait(event_id, 60) for client, event_id in ids]
        wait_until(lambda: {f"F{n}" for n in range(20)} <= set(told["first"]))
        wait_until(lambda: {f"S{n}" for n in range(20)} <= set(told["second"]))

    assert all(replies)
    assert sorted({event["sequence"] for event in scripted_worker.events}) == list(range(1, 41))
    assert all(len(names) == len(set(names)) for names in told.values())


def test_what_was_left_unanswered_is_asked_by_the_next(broker_url: str, station_settings: StationSettings) -> None:
    """A scan whose process ended before its answer is answered to the next process of the station."""
    station_settings = asking_soon(station_settings)
    told: list[str] = []
    with StationClient(station_settings) as client:
        event_id = client.scan("A1")

    with (
        ScriptedWorker(broker_url),
        StationClient(station_settings, on_reply=lambda entry, _: told.append(entry.subject)) as client,
    ):
        reply = client.wait(event_id, 60)
        wait_until(lambda: told)

    assert reply is not None
    assert told == ["A1"]


def test_an_outages_backlog_goes_as_answers_come(
    disconnected: StationSettings,
    reconnect: Callable[[], None],
    scripted_worker: ScriptedWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of many held scans the next ones are sent as replies arrive, without waiting for the sender's poll interval."""
    told: list[str] = []
    barcodes = [f"A{n}" for n in range(320)]

    with StationClient(disconnected, on_reply=lambda entry, _: told.append(entry.subject)) as client:
        for barcode in barcodes:
            client.scan(barcode)
        wait_until(lambda: not client.is_connected)
        reconnect()
        wait_until(lambda: told)
        monkeypatch.setattr("stations.sender.POLL_SECONDS", 600.0)
        wait_until(lambda: len(told) == len(barcodes))

    assert sorted(told) == sorted(barcodes)


def test_noise_on_the_reply_queue(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """What cannot be read on the reply queue is passed over; the answers behind it are heard."""

    def script(w: ScriptedWorker, event: dict[str, Any]) -> None:
        w.send({"type": "bookdrop.return-reply.v1"})
        w.send({"type": "something.else.v9"})
        w.send({**reply_to(event), "a_new_field": 1})

    scripted_worker.script = script

    with StationClient(station_settings) as client:
        reply = client.wait(client.scan("A1"), 60)

    assert reply is not None


def test_a_patron_card_stays_here(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """A patron's card is neither kept nor sent."""
    with StationClient(station_settings.model_copy(update={"patron_card_pattern": r"2\d{6}"})) as client:
        with pytest.raises(PatronCardError):
            client.scan("2000001")
        client.wait(client.scan("A1"), 60)
        subjects = [entry.subject for entry in client.journal.recent()]

    assert subjects == ["A1"]
    assert [event["barcode"] for event in scripted_worker.events] == ["A1"]


def test_a_corrupt_journal_takes_nothing(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """With a damaged journal nothing is taken, and the words say so."""
    station_settings.journal_file.write_bytes(b"this is no database, " * 500)

    with pytest.raises(JournalError, match="Nothing was taken and nothing was sent") as caught:
        StationClient(station_settings)

    assert "Move the damaged file aside" in str(caught.value)
    assert scripted_worker.events == []


def test_a_broker_that_dies_and_comes_back(
    start_valkey: Callable[..., ValkeyServer], station_settings: StationSettings
) -> None:
    """Scans are accepted while the broker is away; all get their replies once it is back."""
    server = start_valkey("--appendonly", "yes", "--appendfsync", "always")
    settings = asking_soon(station_settings).model_copy(update={"broker_url": SecretStr(server.url)})
    with StationClient(settings) as client:
        with ScriptedWorker(server.url):
            before = client.wait(client.scan("A0"), 60)
        server.kill()

        began = time.monotonic()
        ids = [client.scan(f"A{n}") for n in range(1, 6)]
        seconds = time.monotonic() - began
        wait_until(lambda: not client.is_connected)
        server.start()
        with ScriptedWorker(server.url) as worker:
            replies = [client.wait(event_id, 60) for event_id in ids]

    assert before is not None
    assert all(replies)
    assert seconds < 20  # a scan that waited for a connection would take 5 s
    bodies: dict[str, set[bytes]] = {}
    for body, event in zip(worker.bodies, worker.events, strict=True):
        bodies.setdefault(event["event_id"], set()).add(body)
    assert all(len(same) == 1 for same in bodies.values())


def test_scan_for_a_script(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """One JSON reply a line, in the order given; a refusal gives code 1."""
    done = run_station(station_settings, "scan", "--json", "--no-print-slip", "A1", "X2", "\x1b[A")

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1, done.stderr
    assert [(a["barcode"], a["outcome"]) for a in answers] == [
        ("A1", "returned"), ("X2", "refused"), ("?[A", "refused"),
    ]  # fmt: skip
    assert [event["print_slip"] for event in scripted_worker.events] == [False, False]


def test_pending_is_kept_for_the_next_command(broker_url: str, station_settings: StationSettings) -> None:
    """Without an answer the code is 3; the next command of the station asks again."""
    settings = asking_soon(station_settings)
    done = run_station(settings, "scan", "--json", "--wait", "0.2", "A1")

    def all_answered() -> bool:
        run_station(settings, "scan", "--wait", "60", "A2")
        return "pending" not in run_station(settings, "journal", "list").stdout

    with ScriptedWorker(broker_url):
        wait_until(all_answered, "no scan is pending")

    [reply] = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert (reply["barcode"], reply["outcome"]) == ("A1", "pending")


def test_not_taken(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """A journal that cannot be written gives code 4 and clear words; nothing is sent."""
    station_settings.journal_file.write_bytes(b"this is no database, " * 500)

    done = run_station(station_settings, "scan", "--json", "A1")

    assert done.returncode == 4
    assert "Nothing was taken and nothing was sent" in done.stderr
    assert scripted_worker.events == []


def test_wrong_settings(station_settings: StationSettings) -> None:
    """Settings that cannot be used give code 2 and name the setting."""
    done = run_station(station_settings, "scan", "A1", BOOKDROP_STATION_CODE="Not A Code")

    assert done.returncode == 2
    assert "BOOKDROP_STATION_CODE" in done.stderr


def test_return_on_a_request(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """The message is shown, and code 0 says it is done."""
    done = run_station(station_settings, "return", "BR-00017", "--note", "damp")

    assert done.returncode == 0
    assert "The item's destination is Riverside University Library" in done.stdout
    assert scripted_worker.events[0]["note"] == "damp"


@pytest.mark.parametrize("arguments", [("2000001",), ("A1", "--also", "A1", "2000001")], ids=["item", "alias"])
def test_receive_refuses_a_patron_card(
    scripted_worker: ScriptedWorker, station_settings: StationSettings, arguments: tuple[str, ...]
) -> None:
    """A patron card among the barcodes of a parcel is neither stored nor sent, and is not printed."""
    done = run_station(
        station_settings, "receive", "BR-00017", *arguments, BOOKDROP_STATION_PATRON_CARD_PATTERN=r"2\d{6}"
    )

    assert done.returncode == 1, done.stderr
    assert "That is a patron card" in done.stdout
    assert "2000001" not in done.stdout
    assert scripted_worker.events == []


def test_receive_reads_barcodes_as_a_scan_does(
    scripted_worker: ScriptedWorker, station_settings: StationSettings
) -> None:
    """The scanner's prefix and the spaces of each barcode are stripped before the event is signed."""
    run_station(station_settings, "receive", "BR-00017", "#A1 ", "--wait", "1", BOOKDROP_STATION_SCANNER_PREFIX="#")

    assert [item["barcode"] for event in scripted_worker.events for item in event["items"]] == ["A1"]


def test_a_desk_on_a_pipe(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """Each line is scanned once, whatever ends it; garbage and cards stay here; all answers come before the end."""
    lines = "A1\r\nX2\n\nA3\tA3\t" + "z" * 65 + "\n2000001\n:pending\nA4"

    done = run_station(station_settings, "desk", stdin=lines, BOOKDROP_STATION_PATRON_CARD_PATTERN=r"2\d{6}")

    assert done.returncode == 0, done.stderr
    assert sorted(event["barcode"] for event in scripted_worker.events) == ["A1", "A3", "A4", "X2"]
    for words in ("RETURNED  A1", "REFUSED  X2", "RETURNED  A3", "RETURNED  A4", "SAME SCAN  A3",
                  "longer than 64 characters", "That is a patron card", "Nothing was scanned", "Delivery code RUL"):  # fmt: skip
        assert words in done.stdout
    assert done.stdout.count("  The item's destination is Riverside University Library\n") == 4
    assert not {"\a", "\x1b", ">"} & set(done.stdout)


def test_a_pipe_without_a_worker(station_settings: StationSettings) -> None:
    """What has no answer at the end is named, kept, and gives code 3."""
    done = run_station(station_settings, stdin="A1\nA2\n", BOOKDROP_STATION_REPLY_TIMEOUT_SECONDS="0.3")

    assert done.returncode == 3
    assert "PENDING  A1" in done.stdout
    assert "Still pending: 2. Kept in" in done.stdout


def test_a_broker_that_is_away_is_said_so(station_settings: StationSettings, tmp_path: Path) -> None:
    """Without a broker the scan is held, and the words say that it is."""
    away = f"redis+socket://{tmp_path}/nothing.sock"

    done = run_station(station_settings, "scan", "--wait", "1", "A1", BOOKDROP_BROKER_URL=away)

    assert done.returncode == 3
    assert "Held, slip follows: the network is away" in done.stdout


@pytest.fixture
def terminal(station_settings: StationSettings) -> Iterator[StationTerminal]:
    opened = StationTerminal(station_settings)
    opened.wait_for("> ")
    yield opened
    opened.close()


def test_a_desk_at_a_terminal(scripted_worker: ScriptedWorker, terminal: StationTerminal) -> None:
    """The prompt is empty again at once, an answer stands above what is being typed, Ctrl-D leaves with code 0."""
    terminal.type("A1\rA2\tA")
    terminal.wait_for("RETURNED  A2")
    terminal.type("9\x7f3\r")
    terminal.wait_for("RETURNED  A3")
    terminal.type("\x04")

    assert terminal.end() == 0
    assert [event["barcode"] for event in scripted_worker.events] == ["A1", "A2", "A3"]
    assert "> A\r" in terminal.output or terminal.output.count("> A") > 3
    assert "\a" in terminal.output
    assert "\x1b[1;" not in terminal.output  # NO_COLOR is set


def test_colour_at_a_terminal(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """Without NO_COLOR the large word has its colour."""
    terminal = StationTerminal(station_settings, NO_COLOR="")
    terminal.wait_for("> ")
    terminal.type("A1\rX2\r")

    terminal.wait_for("\x1b[1;32mRETURNED  A1")
    terminal.wait_for("\x1b[1;31mREFUSED  X2")

    terminal.type(":quit\r")
    assert terminal.end() == 0
    terminal.close()


def test_a_backdate_shows_while_it_is_on(scripted_worker: ScriptedWorker, terminal: StationTerminal) -> None:
    """Drop-box mode is in the prompt, and goes with the scans, until it is off."""
    terminal.type(":backdate 2026-01-02 18:00\r")
    terminal.wait_for("[BACKDATED 2026-01-02 18:00] > ")
    terminal.type("A1\r")
    terminal.wait_for("RETURNED  A1")
    terminal.type(":backdate 2999-01-01 00:00\r:backdate soon\r:backdate off\rA2\r")
    terminal.wait_for("RETURNED  A2")
    terminal.type(":quit\r")

    assert terminal.end() == 0
    assert "That lies in the future" in terminal.output
    assert "Write it as" in terminal.output
    local = datetime(2026, 1, 2, 18, 0).astimezone()
    given = [event.get("returned_at") for event in scripted_worker.events]
    assert [given[0] and datetime.fromisoformat(given[0]), given[1]] == [local, None]


def test_a_late_answer_is_pending_first(broker_url: str, terminal: StationTerminal) -> None:
    """Without an answer a scan is shown as pending, scanning goes on, and the answer comes when it comes."""
    terminal.type("A1\r")
    terminal.wait_for("PENDING  A1")
    terminal.type("A2\r:pending\r")
    with ScriptedWorker(broker_url):
        terminal.wait_for("RETURNED  A1")
        terminal.wait_for("RETURNED  A2")
        terminal.type("\x04")
        assert terminal.end() == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, "Ctrl-C"], ids=str)
def test_leaving_at_once(terminal: StationTerminal, how: signal.Signals | str) -> None:
    """Ctrl-C and signals leave at once; what is pending is named; the terminal is as it was found."""
    terminal.type("A1\r")
    terminal.wait_for("PENDING  A1")
    if isinstance(how, str):
        terminal.type("\x03")
    else:
        terminal.process.send_signal(how)

    assert terminal.end() == 3
    assert "Still pending: 1" in terminal.output


def test_return_from_the_desk(scripted_worker: ScriptedWorker, terminal: StationTerminal) -> None:
    """A request is returned from the prompt, and help says how."""
    terminal.type(":help\r:return BR-00017\r")
    terminal.wait_for("RETURNED  BR-00017")
    terminal.type(":recent\r:quit\r")

    assert terminal.end() == 0
    assert ":return REQUEST" in terminal.output
    assert scripted_worker.events[0]["request"] == "BR-00017"


def test_a_journal_that_breaks_while_the_desk_is_open(
    scripted_worker: ScriptedWorker, terminal: StationTerminal, tmp_path: Path
) -> None:
    """When the journal cannot be written the desk says NOT TAKEN, sends nothing, and ends with code 4."""
    blocker = sqlite3.connect(tmp_path / "desk.journal")
    blocker.execute("DROP TABLE events")
    blocker.close()

    terminal.type("A1\r")
    terminal.wait_for("NOT TAKEN")
    terminal.type(":quit\r")

    assert terminal.end() == 4
    assert "Not taken; nothing was sent" in terminal.output
    assert scripted_worker.events == []
