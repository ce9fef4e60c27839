# SPDX-License-Identifier: Apache-2.0
"""The station's client on a real broker, with a scripted worker; its commands, and its prompt on a terminal."""

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


def retrying_soon(station_settings: StationSettings) -> StationSettings:
    """The settings with a short retry interval."""
    return station_settings.model_copy(update={"retry_interval_seconds": 0.3})


def test_scan_is_signed_and_gets_its_reply(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """The worker gets a signed task message with the reply queue; the station gets the reply."""
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


def test_return_from_the_request_requests_no_slip(
    scripted_worker: ScriptedWorker, station_settings: StationSettings
) -> None:
    """A Return on a request carries the note, and requests no slip by default."""
    with StationClient(station_settings) as client:
        reply = client.wait(client.request_return("BR-00017", note="left in the reading room"), 60)

    assert reply is not None
    assert reply.request == "BR-00017"
    [event] = scripted_worker.events
    assert (event["print_slip"], event["note"]) == (False, "left in the reading room")
    assert scripted_worker.messages[0].headers["task"] == PROCESS_RETURN


def test_event_without_a_reply_is_resent_unchanged(
    scripted_worker: ScriptedWorker, station_settings: StationSettings
) -> None:
    """Without a reply the event is resent with the same id and the same bytes until the reply arrives."""
    scripted_worker.script = lambda w, event: w.send(reply_to(event)) if len(w.bodies) == 3 else None

    with StationClient(retrying_soon(station_settings)) as client:
        reply = client.wait(client.scan("31000000170"), 60)

    assert reply is not None
    assert len(scripted_worker.bodies) == 3
    assert len(set(scripted_worker.bodies)) == 1


def test_replies_in_another_order_are_matched(
    scripted_worker: ScriptedWorker, station_settings: StationSettings
) -> None:
    """Each reply is matched to its scan, in any order, and is reported once."""
    received: list[dict[str, Any]] = []
    reported: list[tuple[str, str]] = []

    def script(w: ScriptedWorker, event: dict[str, Any]) -> None:
        received.append(event)
        if len({e["event_id"] for e in received}) == 3:
            for one in reversed(received):
                w.send(reply_to(one))
                w.send(reply_to(one))

    scripted_worker.script = script
    with StationClient(
        station_settings,
        on_reply=lambda entry, reply: reported.append((entry.subject, reply.barcode or "")),
    ) as client:
        ids = [client.scan(barcode) for barcode in ("A1", "X2", "A3")]
        outcomes = [reply.outcome for event_id in ids if (reply := client.wait(event_id, 60))]
        wait_until(lambda: len(reported) == 3)

    assert outcomes == [Outcome.RETURNED, Outcome.REFUSED, Outcome.RETURNED]
    assert reported == [("A3", "A3"), ("X2", "X2"), ("A1", "A1")]


def test_slip_notice_is_reported_and_stored(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """The result of the slip is reported, and stored in the journal."""
    reported: list[str | None] = []
    notice = {"type": "bookdrop.slip-notice.v1", "job_id": "01890a5d-ac96-774b-bcce-b302099a8057", "state": "done"}

    def script(w: ScriptedWorker, event: dict[str, Any]) -> None:
        w.send(reply_to(event))
        w.send({**notice, "event_id": event["event_id"], "message": "Slip sent", "at": datetime.now(UTC).isoformat()})

    scripted_worker.script = script
    with StationClient(station_settings, on_slip=lambda entry: reported.append(entry.slip_message)) as client:
        event_id = client.scan("A1")
        wait_until(lambda: reported)
        entry = client.journal.entry(str(event_id))

    assert reported == ["Slip sent"]
    assert entry is not None
    assert entry.slip_state == "done"


def test_two_clients_of_one_station_report_their_replies(
    scripted_worker: ScriptedWorker, station_settings: StationSettings
) -> None:
    """Whichever client receives a reply, the one that scanned reports it, once; sequence numbers never repeat."""
    reported: dict[str, list[str]] = {"first": [], "second": []}
    with (
        StationClient(station_settings, on_reply=lambda entry, _: reported["first"].append(entry.subject)) as first,
        StationClient(station_settings, on_reply=lambda entry, _: reported["second"].append(entry.subject)) as second,
    ):
        ids = [(client, client.scan(f"{name}{n}")) for n in range(20) for name, client in (("F", first), ("S", second))]
        replies = [client.wait(event_id, 60) for client, event_id in ids]
        wait_until(lambda: {f"F{n}" for n in range(20)} <= set(reported["first"]))
        wait_until(lambda: {f"S{n}" for n in range(20)} <= set(reported["second"]))

    assert all(replies)
    assert sorted({event["sequence"] for event in scripted_worker.events}) == list(range(1, 41))
    assert all(len(names) == len(set(names)) for names in reported.values())


def test_next_client_gets_the_reply_to_an_earlier_scan(broker_url: str, station_settings: StationSettings) -> None:
    """A scan whose process ended before its reply gets it in the next process of the station."""
    station_settings = retrying_soon(station_settings)
    reported: list[str] = []
    with StationClient(station_settings) as client:
        event_id = client.scan("A1")

    with (
        ScriptedWorker(broker_url),
        StationClient(station_settings, on_reply=lambda entry, _: reported.append(entry.subject)) as client,
    ):
        reply = client.wait(event_id, 60)
        wait_until(lambda: reported)

    assert reply is not None
    assert reported == ["A1"]


def test_backlog_is_sent_as_replies_arrive(
    disconnected: StationSettings,
    reconnect: Callable[[], None],
    scripted_worker: ScriptedWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of many held scans the next ones are sent as replies arrive, without waiting for the sender's poll interval."""
    reported: list[str] = []
    barcodes = [f"A{n}" for n in range(320)]

    with StationClient(disconnected, on_reply=lambda entry, _: reported.append(entry.subject)) as client:
        for barcode in barcodes:
            client.scan(barcode)
        wait_until(lambda: not client.is_connected)
        reconnect()
        wait_until(lambda: reported)
        monkeypatch.setattr("stations.sender.POLL_SECONDS", 600.0)
        wait_until(lambda: len(reported) == len(barcodes))

    assert sorted(reported) == sorted(barcodes)


def test_malformed_messages_on_the_reply_queue_are_skipped(
    scripted_worker: ScriptedWorker, station_settings: StationSettings
) -> None:
    """Malformed messages on the reply queue are skipped; the replies behind them are received."""

    def script(w: ScriptedWorker, event: dict[str, Any]) -> None:
        w.send({"type": "bookdrop.return-reply.v1"})
        w.send({"type": "something.else.v9"})
        w.send({**reply_to(event), "a_new_field": 1})

    scripted_worker.script = script

    with StationClient(station_settings) as client:
        reply = client.wait(client.scan("A1"), 60)

    assert reply is not None


def test_patron_card_is_neither_stored_nor_sent(
    scripted_worker: ScriptedWorker, station_settings: StationSettings
) -> None:
    """A patron card is rejected before the journal."""
    with StationClient(station_settings.model_copy(update={"patron_card_pattern": r"2\d{6}"})) as client:
        with pytest.raises(PatronCardError):
            client.scan("2000001")
        client.wait(client.scan("A1"), 60)
        subjects = [entry.subject for entry in client.journal.recent()]

    assert subjects == ["A1"]
    assert [event["barcode"] for event in scripted_worker.events] == ["A1"]


def test_damaged_journal_is_rejected(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """With a damaged journal no scan is accepted, and the error states so."""
    station_settings.journal_file.write_bytes(b"not a database, " * 500)

    with pytest.raises(JournalError, match="Nothing was taken and nothing was sent") as caught:
        StationClient(station_settings)

    assert "Move the damaged file aside" in str(caught.value)
    assert scripted_worker.events == []


def test_scans_during_a_broker_outage_get_their_replies(
    start_valkey: Callable[..., ValkeyServer], station_settings: StationSettings
) -> None:
    """Scans are accepted while the broker is unavailable; all get their replies after its restart."""
    server = start_valkey("--appendonly", "yes", "--appendfsync", "always")
    settings = retrying_soon(station_settings).model_copy(update={"broker_url": SecretStr(server.url)})
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


def test_scan_command_prints_one_reply_a_line(
    scripted_worker: ScriptedWorker, station_settings: StationSettings
) -> None:
    """One JSON reply a line, in the given order; a refusal ends with code 1."""
    done = run_station(station_settings, "scan", "--json", "--no-print-slip", "A1", "X2", "\x1b[A")

    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1, done.stderr
    assert [(a["barcode"], a["outcome"]) for a in replies] == [
        ("A1", "returned"), ("X2", "refused"), ("?[A", "refused"),
    ]  # fmt: skip
    assert [event["print_slip"] for event in scripted_worker.events] == [False, False]


def test_pending_scan_is_resent_by_the_next_command(broker_url: str, station_settings: StationSettings) -> None:
    """Without a reply the code is 3; the next command of the station resends the event."""
    settings = retrying_soon(station_settings)
    done = run_station(settings, "scan", "--json", "--wait", "0.2", "A1")

    def all_replied() -> bool:
        run_station(settings, "scan", "--wait", "60", "A2")
        return "pending" not in run_station(settings, "journal", "list").stdout

    with ScriptedWorker(broker_url):
        wait_until(all_replied, "no scan is pending")

    [reply] = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert (reply["barcode"], reply["outcome"]) == ("A1", "pending")


def test_unwritable_journal_ends_with_code_4(
    scripted_worker: ScriptedWorker, station_settings: StationSettings
) -> None:
    """A journal that cannot be written ends with code 4 and the cause; nothing is sent."""
    station_settings.journal_file.write_bytes(b"not a database, " * 500)

    done = run_station(station_settings, "scan", "--json", "A1")

    assert done.returncode == 4
    assert "Nothing was taken and nothing was sent" in done.stderr
    assert scripted_worker.events == []


def test_invalid_setting_ends_with_code_2(station_settings: StationSettings) -> None:
    """Invalid settings end with code 2 and name the setting."""
    done = run_station(station_settings, "scan", "A1", BOOKDROP_STATION_CODE="Not A Code")

    assert done.returncode == 2
    assert "BOOKDROP_STATION_CODE" in done.stderr


def test_return_command_shows_the_message(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """The message is shown, and the code is 0."""
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


def test_prompt_on_a_pipe_scans_each_line(scripted_worker: ScriptedWorker, station_settings: StationSettings) -> None:
    """Each line is scanned once, with any line end; invalid lines and cards are rejected; all replies are printed."""
    lines = "A1\r\nX2\n\nA3\tA3\t" + "z" * 65 + "\n2000001\n:pending\nA4"

    done = run_station(station_settings, "desk", stdin=lines, BOOKDROP_STATION_PATRON_CARD_PATTERN=r"2\d{6}")

    assert done.returncode == 0, done.stderr
    assert sorted(event["barcode"] for event in scripted_worker.events) == ["A1", "A3", "A4", "X2"]
    for words in ("RETURNED  A1", "REFUSED  X2", "RETURNED  A3", "RETURNED  A4", "SAME SCAN  A3",
                  "longer than 64 characters", "That is a patron card", "Nothing was scanned", "Delivery code RUL"):  # fmt: skip
        assert words in done.stdout
    assert done.stdout.count("  The item's destination is Riverside University Library\n") == 4
    assert not {"\a", "\x1b", ">"} & set(done.stdout)


def test_prompt_on_a_pipe_without_a_worker_ends_with_code_3(station_settings: StationSettings) -> None:
    """Scans without a reply at the end are listed, kept, and end with code 3."""
    done = run_station(station_settings, stdin="A1\nA2\n", BOOKDROP_STATION_REPLY_TIMEOUT_SECONDS="0.3")

    assert done.returncode == 3
    assert "PENDING  A1" in done.stdout
    assert "Still pending: 2. Kept in" in done.stdout


def test_scan_command_without_a_broker_holds_the_scan(station_settings: StationSettings, tmp_path: Path) -> None:
    """Without a broker the scan is held, and the output states so."""
    away = f"redis+socket://{tmp_path}/nothing.sock"

    def held() -> bool:
        done = run_station(station_settings, "scan", "--wait", "1", "A1", BOOKDROP_BROKER_URL=away)
        assert done.returncode == 3
        return "Held, slip follows: the network is away" in done.stdout

    wait_until(held, "the station notices within its wait that the broker is away")


@pytest.fixture
def terminal(station_settings: StationSettings) -> Iterator[StationTerminal]:
    """A prompt on a pseudo terminal."""
    opened = StationTerminal(station_settings)
    opened.wait_for("> ")
    yield opened
    opened.close()


def test_prompt_shows_replies_above_the_input(scripted_worker: ScriptedWorker, terminal: StationTerminal) -> None:
    """The prompt is empty again at once, a reply appears above the input, Ctrl-D ends with code 0."""
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


def test_prompt_uses_colours_without_no_color(
    scripted_worker: ScriptedWorker, station_settings: StationSettings
) -> None:
    """Without NO_COLOR the outcome has its colour."""
    terminal = StationTerminal(station_settings, NO_COLOR="")
    terminal.wait_for("> ")
    terminal.type("A1\rX2\r")

    terminal.wait_for("\x1b[1;32mRETURNED  A1")
    terminal.wait_for("\x1b[1;31mREFUSED  X2")

    terminal.type(":quit\r")
    assert terminal.end() == 0
    terminal.close()


def test_backdate_is_shown_and_sent_while_it_is_set(scripted_worker: ScriptedWorker, terminal: StationTerminal) -> None:
    """Drop-box mode is shown in the prompt and sent with the scans until it is switched off."""
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


def test_late_reply_is_shown_as_pending_first(broker_url: str, terminal: StationTerminal) -> None:
    """Without a reply a scan is shown as pending, scanning continues, and the reply is shown when it arrives."""
    terminal.type("A1\r")
    terminal.wait_for("PENDING  A1")
    terminal.type("A2\r:pending\r")
    with ScriptedWorker(broker_url):
        terminal.wait_for("RETURNED  A1")
        terminal.wait_for("RETURNED  A2")
        terminal.type("\x04")
        assert terminal.end() == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, "Ctrl-C"], ids=str)
def test_interrupt_and_signals_end_the_prompt(terminal: StationTerminal, how: signal.Signals | str) -> None:
    """Ctrl-C and signals end the prompt at once; pending scans are listed; the terminal is restored."""
    terminal.type("A1\r")
    terminal.wait_for("PENDING  A1")
    if isinstance(how, str):
        terminal.type("\x03")
    else:
        terminal.process.send_signal(how)

    assert terminal.end() == 3
    assert "Still pending: 1" in terminal.output


def test_prompt_returns_a_request(scripted_worker: ScriptedWorker, terminal: StationTerminal) -> None:
    """A request is returned from the prompt, and the help lists the command."""
    terminal.type(":help\r:return BR-00017\r")
    terminal.wait_for("RETURNED  BR-00017")
    terminal.type(":recent\r:quit\r")

    assert terminal.end() == 0
    assert ":return REQUEST" in terminal.output
    assert scripted_worker.events[0]["request"] == "BR-00017"


def test_journal_failing_at_the_prompt_rejects_scans(
    scripted_worker: ScriptedWorker, terminal: StationTerminal, tmp_path: Path
) -> None:
    """When the journal cannot be written the prompt shows NOT TAKEN, sends nothing, and ends with code 4."""
    blocker = sqlite3.connect(tmp_path / "desk.journal")
    blocker.execute("DROP TABLE events")
    blocker.close()

    terminal.type("A1\r")
    terminal.wait_for("NOT TAKEN")
    terminal.type(":quit\r")

    assert terminal.end() == 4
    assert "Not taken; nothing was sent" in terminal.output
    assert scripted_worker.events == []
