# SPDX-License-Identifier: Apache-2.0
"""A reader of the broker, without a key: what it sees, and what a replay of what it captured changes.

The attacker reads every queue and every monitoring event, and sends captured replies again as they are, with a worker's
user of the broker, and captured events with that of a station. `test_replies.py` has the forged ones.
"""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import amqp
import pytest
import redis
from celery import Celery
from kombu import Connection
from sqlalchemy import func, select, update

from schemas.circulation_events import UndoRequested
from schemas.models import Patron, PrintJob, Request, RequestEvent
from schemas.reply_signature import ReplyKeys, sign_reply
from schemas.request_status import RequestStatus
from schemas.topology import PROCESS_UNDO, RETURNS_QUEUE, printing_queue, reply_queue
from stations.client import StationClient
from stations.journal.events import Journal
from stations.journal.rejected_messages import rejected_messages
from tests.library import KEY, Library
from tests.polling import wait_until
from tests.processes import Deployment
from tests.rabbitmq import virtual_host
from tests.raw_station import RawStation
from tests.requirements import skip_or_fail
from tests.secured_redis import secured_redis

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite")]

CODE, OTHER = "main-desk-1", "main-desk-2"
NAME, NUMBER = "Zyphora Unmistakable-Canaria", "CANARY4711007"


class Captured(NamedTuple):
    """A message as its reader captured it."""

    body: str
    again: Any
    """On Redis the list entry, on RabbitMQ the message: what is sent again."""


@dataclass
class Reader:
    """Reads queues without taking a message, and sends captures again unchanged."""

    url: str
    client: redis.Redis | None = None

    def read(self, queue: str) -> list[Captured]:
        """The messages of a queue, oldest first. They stay there."""
        if self.client is not None:
            entries: Any = self.client.lrange(queue, 0, -1)
            return [
                Captured(base64.b64decode(json.loads(entry)["body"]).decode(), entry) for entry in reversed(entries)
            ]
        with Connection(self.url) as connection:  # what it does not acknowledge, returns to the queue
            channel: Any = connection.default_channel
            messages = iter(lambda: channel.basic_get(queue), None)
            try:
                return [Captured(_text(message.body), message) for message in messages]
            except (*connection.channel_errors, *connection.connection_errors):
                return []  # the queue is not declared yet, or not running yet

    def send(self, queue: str, *captures: Captured, times: int = 1) -> None:
        """Send captures again, in order, each so many times."""
        for captured in [each for each in captures for _ in range(times)]:
            if self.client is not None:
                self.client.lpush(queue, captured.again)
                continue
            with Connection(self.url) as connection:
                channel: Any = connection.default_channel
                properties = dict(captured.again.properties)
                channel.basic_publish(amqp.Message(captured.again.body, **properties), "", queue)


def _text(body: str | bytes) -> str:
    return body if isinstance(body, str) else body.decode()


@pytest.fixture(params=["redis", "valkey", "rabbitmq"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reader]:
    """A separate broker of each kind, and its reader."""
    if request.param == "rabbitmq":
        with virtual_host() as host:
            if host is None:
                skip_or_fail("a RabbitMQ server on 127.0.0.1:5672, and root, who may create virtual hosts")
            yield Reader(host.url)
        return
    with secured_redis(request.param, tmp_path) as server:
        yield Reader(server.urls["administrator"], server.administrator)


@pytest.fixture
def deployment(reader: Reader, database_url: str, tmp_path: Path) -> Deployment:
    """A deployment on the reader's broker."""
    return Deployment(reader.url, database_url, tmp_path)


@pytest.mark.timeout(600)
def test_replayed_events_get_their_stored_reply_and_change_nothing(
    reader: Reader, deployment: Deployment, library: Library
) -> None:
    """Copies before the reply, after it, and after an undo: one Return, one slip, one reply. Honest scans are answered."""
    request, [barcode] = library.request()
    with closing(RawStation(reader.url)) as station:

        def scan_another() -> None:
            station.replies_to(station.send(library.scan(library.request()[1][0])))

        event_id = station.send(library.scan(barcode))
        [captured] = wait_until(lambda: reader.read(RETURNS_QUEUE))
        reader.send(RETURNS_QUEUE, captured, times=3)
        with deployment.worker("returns"):
            scan_another()
            reader.send(RETURNS_QUEUE, captured, times=3)
            scan_another()
            undo = station.send(library.event(UndoRequested, undoes=UUID(event_id)), task=PROCESS_UNDO)
            station.wait_until(lambda: undo in {message["event_id"] for message in station.received})
            reader.send(RETURNS_QUEUE, captured, times=3)
            scan_another()
        replies = [reply for reply in station.replies() if reply["event_id"] == event_id]

    with library.engine.connect() as connection:
        of_request = select(Request.id).where(Request.external_id == request).scalar_subquery()
        history = connection.scalars(
            select(RequestEvent.kind).where(RequestEvent.request_id == of_request).order_by(RequestEvent.id)
        ).all()
        status = connection.scalar(select(Request.status).where(Request.id == of_request))
        slips = connection.scalar(select(func.count()).select_from(PrintJob).where(PrintJob.request_id == of_request))
    assert history == ["returned", "undone"]
    assert (status, slips) == (RequestStatus.LOANED, 1)
    assert all(reply == replies[0] for reply in replies)


@pytest.mark.timeout(600)
def test_replayed_replies_and_notices_change_nothing_at_the_station(
    reader: Reader, deployment: Deployment, library: Library
) -> None:
    """Copies of the reply and of both notices, also for the next process: nothing is shown, the newest state stays."""
    settings = deployment.station_settings(require_signed_replies=True)
    with StationClient(settings) as client:
        event_id = client.scan(library.request()[1][0], print_slip=False)
        wait_until(lambda: reader.read(RETURNS_QUEUE))
    with deployment.worker("returns"):
        [reply, *_] = wait_until(lambda: reader.read(reply_queue(CODE)))
    began = datetime.now(UTC)
    waits = notice_of(reply, event_id, "held", "The printer has no paper.", began - timedelta(seconds=9))
    printed = notice_of(reply, event_id, "done", "The slip is printed.", began)
    shown: list[str] = []

    with client_of(settings, shown) as client:
        wait_until(lambda: len(shown) == 1)
        reader.send(reply_queue(CODE), waits)
        wait_until(lambda: len(shown) == 2)
        reader.send(reply_queue(CODE), printed)
        wait_until(lambda: len(shown) == 3)
        reader.send(reply_queue(CODE), waits, reply, printed, waits, times=2)
        drain(reader, client)
        first = client.journal.entry(str(event_id))
    with client_of(settings, shown) as client:
        reader.send(reply_queue(CODE), waits, reply, printed, waits, times=2)
        drain(reader, client)
        second = client.journal.entry(str(event_id))

    assert first is not None
    assert first == second
    assert (first.slip_state, first.slip_message) == ("done", "The slip is printed.")
    assert len(shown) == 3, shown
    with closing(Journal(settings.journal_file, CODE)) as journal:
        assert rejected_messages(journal).count == 2  # those of `drain`


def notice_of(reply: Captured, event_id: UUID, state: str, message: str, at: datetime) -> Captured:
    """A worker's notice, in the envelope of the captured reply."""
    notice = {
        "type": "bookdrop.slip-notice.v1", "event_id": str(event_id), "job_id": str(UUID(int=7)), "state": state,
        "message": message, "at": at.isoformat(),
    }  # fmt: skip
    return with_body(reply, sign_reply(json.dumps(notice), ReplyKeys(CODE, KEY)))


def with_body(captured: Captured, body: str) -> Captured:
    """A capture with another body."""
    if isinstance(captured.again, bytes):
        entry = json.loads(captured.again)
        entry["body"] = base64.b64encode(body.encode()).decode()
        return Captured(body, json.dumps(entry).encode())
    return Captured(body, amqp.Message(body, **captured.again.properties))


@contextmanager
def client_of(settings: Any, shown: list[str]) -> Iterator[StationClient]:
    """A station's client that records what it would show."""
    with StationClient(
        settings,
        on_reply=lambda _entry, reply: shown.append(reply.message),
        on_slip=lambda entry: shown.append(str(entry.slip_message)),
    ) as client:
        yield client


def drain(reader: Reader, client: StationClient) -> None:
    """Return when the station has read everything before: it counts an unsigned message, which is sent last."""
    before = rejected_messages(client.journal).count
    template = amqp.Message("", content_type="application/json", content_encoding="utf-8")
    entry: dict[str, Any] = {
        "body": "", "content-type": "application/json", "content-encoding": "utf-8", "headers": {},
        "properties": {"body_encoding": "base64", "delivery_tag": "x", "delivery_info": {}},
    }  # fmt: skip
    last = Captured("", json.dumps(entry).encode() if reader.client is not None else template)
    reader.send(reply_queue(CODE), with_body(last, "{}"))
    wait_until(lambda: rejected_messages(client.journal).count == before + 1)


EVENT_FIELDS = {"type", "event_id", "station", "sequence", "signature", "barcode", "scanned_at", "print_slip"}
REPLY_FIELDS = {
    "type", "event_id", "station", "signature", "outcome", "reason", "message", "barcode", "title", "destination", "request",
    "status_before", "status_after", "discharged", "slip", "urgent", "warnings", "choices", "returned_at", "returned_by",
    "next_step", "items",
}  # fmt: skip


@pytest.mark.timeout(600)
def test_captures_contain_the_documented_fields_and_no_patron(
    reader: Reader, deployment: Deployment, library: Library
) -> None:
    """Events, replies, print tasks and monitoring: barcode, title and lender are there; patron and key are not."""
    request, [barcode] = library.request()
    with library.engine.begin() as connection:
        connection.execute(update(Patron).values(name=NAME, number=NUMBER))
    seen: list[dict[str, Any]] = []
    with StationClient(deployment.station_settings()) as client:
        client.scan(barcode)
        events = wait_until(lambda: reader.read(RETURNS_QUEUE))

    with monitoring(reader, seen), deployment.worker("returns"):
        replies = wait_until(lambda: reader.read(reply_queue(CODE)))
        prints = wait_until(lambda: reader.read(printing_queue("main")))
        wait_until(lambda: {"task-received", "task-succeeded"} <= {each["type"] for each in seen})

    [[event], _, _] = json.loads(events[0].body)
    assert set(event) <= EVENT_FIELDS
    assert event["barcode"] == barcode
    reply = json.loads(replies[0].body)
    assert set(reply) <= REPLY_FIELDS
    assert (reply["title"], reply["request"]) == ("The book number 1", request)
    captures = [repr(each) for each in (*events, *replies, *prints)] + [
        each.body for each in (*events, *replies, *prints)
    ]
    for text in [*captures, json.dumps(seen, default=str)]:
        assert not [telltale for telltale in (NAME, "Zyphora", NUMBER, KEY) if telltale in text], text[:500]
    assert barcode not in json.dumps(seen, default=str)


@contextmanager
def monitoring(reader: Reader, seen: list[dict[str, Any]]) -> Iterator[None]:
    """Record all of Celery's events meanwhile, as a monitor does."""
    is_ready, ends = [False], [False]

    def record() -> None:
        with Connection(reader.url) as given:
            receiver = Celery(broker=reader.url).events.Receiver(given, handlers={"*": seen.append})
            with receiver.consumer_context() as (connection, *_):
                is_ready[0] = True
                while not ends[0]:
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=0.2)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(record)
        wait_until(lambda: is_ready[0] or done.done())
        try:
            yield
        finally:
            ends[0] = True
        done.result()
