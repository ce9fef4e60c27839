# SPDX-License-Identifier: Apache-2.0
"""Whatever lands in a queue is kept with its reason, the worker lives, and a person decides; on both brokers."""

import json
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from kombu import Connection, Consumer, Producer
from sqlalchemy import insert, select, update
from sqlalchemy.orm import sessionmaker

from schemas import signing
from schemas.database import open_engine
from schemas.models import Branch, QuarantinedMessage, RequestEvent, Station, table
from schemas.reasons import PROVISIONAL_REASONS
from schemas.task_message import task_body, task_headers
from schemas.topology import (
    DEAD_LETTER_QUEUE,
    PROCESS_SCAN,
    RETURNS_QUEUE,
    SWEEP_OUTBOX,
)
from tasks.context import Context
from tasks.events import validation
from tasks.events.processing import process_in
from tasks.operator import Operator
from tasks.quarantine.actions import DecisionRefusedError, drop, retry
from tasks.quarantine.maintenance import collect_dead_letters, sweep
from tasks.quarantine.rejection import MESSAGES, Received
from tasks.returns.handler import RETURN_HANDLER
from tests.conftest import HOUSE, Kept
from tests.library import KEY, Library
from tests.wire import Wire, worker
from workers.dead_letters import open_dead_letters
from workers.runtime.queues import queue_declaration

ME = Operator("a test", "because")
quarantine = table(QuarantinedMessage)


@pytest.fixture
def on_redis(here, broker_url):
    """What a worker's tasks need, with a broker, on both databases."""
    return replace(here, dead_letters=lambda: open_dead_letters(lambda: Connection(broker_url)))


@pytest.fixture
def sqlite_engine(sqlite_url):
    """The engine of a database that real workers share."""
    engine = open_engine(sqlite_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_library(sqlite_engine, tmp_path):
    """A small library on SQLite."""
    return Library(sqlite_engine, tmp_path / "spool").open()


@pytest.fixture
def with_any(sqlite_engine, clock, any_broker_url):
    """What gathers dead letters from either broker, on SQLite."""
    sessions = sessionmaker(sqlite_engine, expire_on_commit=False)
    return Context(
        sessions, clock, Kept(), "a test", dead_letters=lambda: open_dead_letters(lambda: Connection(any_broker_url))
    )


def rows(engine, *columns):
    with engine.connect() as connection:
        return connection.execute(select(*(columns or (quarantine,))).order_by(quarantine.c.id)).all()


def reasons(engine):
    return [row.reason for row in rows(engine)]


def publish(url, queue, body, **properties):
    with Connection(url) as connection:
        channel = connection.channel()
        queue_declaration(queue).bind(channel).queue_declare()
        Producer(channel).publish(body, exchange="", routing_key=queue, **properties)


@contextmanager
def taken(url, queue):
    """The messages that lie in a queue; they are acknowledged."""
    found: list[Any] = []
    with Connection(url) as connection:
        consumer = Consumer(
            connection.channel(), [queue_declaration(queue)], on_message=found.append, prefetch_count=100
        )
        with consumer:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    connection.drain_events(timeout=0.5)
                except TimeoutError:
                    break
        yield found
        for message in found:
            message.ack()


def until(condition, patience=40.0):
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
    return found


def larger(payload):
    """The same event with a field that nobody knows, which the signature covers."""
    payload = payload | {"padding": "x" * validation.MAX_EVENT_BYTES}
    return payload | {"signature": signing.sign(payload, KEY.encode())}


# What is not believed


def test_a_message_larger_than_any_event(library, perform, engine):
    """It is refused and kept with its reason, as much of it as is kept of anything, though its signature is right."""
    _, [barcode] = library.request()

    [reply] = perform(RETURN_HANDLER, larger(library.scan(barcode)))

    assert (reply.outcome, reply.reason) == ("refused", "oversize")
    [row] = rows(engine)
    assert (row.reason, row.whole) == ("oversize", False)


def test_a_message_nested_without_end(library, perform, engine):
    """What no JSON can be made of is kept with its reason, and harms nobody."""
    _, [barcode] = library.request()
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    bad = library.scan(barcode) | {"padding": deep}

    [reply] = perform(RETURN_HANDLER, bad)

    assert reply.reason == "bad_schema"
    assert reasons(engine) == ["bad_schema"]


def test_the_same_message_again_is_the_same_row(library, perform, engine):
    """A station that asks again does not fill the list; another message of its is another row."""
    _, [barcode] = library.request()
    bad = library.scan(barcode, key="not-the-key")

    for _ in range(3):
        perform(RETURN_HANDLER, bad)
    perform(RETURN_HANDLER, library.scan(barcode, key="not-the-key"))

    assert [row.times for row in rows(engine)] == [3, 1]


# Decisions


def stranger(library, barcode):
    return library.scan(barcode, station="west-desk-1")


def let_in(engine):
    with engine.begin() as connection:
        branch = connection.execute(select(Branch.id).limit(1)).scalar_one()
        connection.execute(insert(Station).values(code="west-desk-1", branch_id=branch, key=KEY, active=True))


def distrusted(here, payload):
    with here.unit_of_work() as uow:
        process_in(uow, [Received(payload, "reply.west-desk-1", PROCESS_SCAN)], RETURN_HANDLER, HOUSE)


def test_a_retry_is_the_message_as_it_was(sqlite_library, with_any, any_broker_url, sqlite_engine):
    """What goes back on the queue has the event, the task, the id and the reply queue that came."""
    payload = stranger(sqlite_library, "31000000017")
    distrusted(with_any, payload)

    retry(1, ME, with_any)

    with taken(any_broker_url, RETURNS_QUEUE) as [message]:
        assert json.loads(message.body)[0] == [payload]
        assert (message.headers["task"], message.headers["id"]) == (PROCESS_SCAN, payload["event_id"])
        assert message.properties["reply_to"] == "reply.west-desk-1"
    [row] = rows(sqlite_engine)
    assert (row.state, row.decided_by, row.decision_reason) == ("retried", "a test", "because")


def test_a_retry_that_succeeds_is_settled(library, on_redis, engine):
    """Once the station is known, the retried event is performed; its row is settled and its body is gone."""
    _, [barcode] = library.request()
    payload = stranger(library, barcode)
    distrusted(on_redis, payload)
    retry(1, ME, on_redis)
    assert sweep(on_redis).settled == 0

    let_in(engine)
    distrusted(on_redis, payload)

    assert sweep(on_redis).settled == 1
    [row] = rows(engine)
    assert (row.state, row.body, row.decided_by) == ("settled", "", "a test")
    with engine.connect() as connection:
        assert len(connection.execute(select(RequestEvent.id)).all()) == 1


def test_a_retry_in_vain_waits_again(library, on_redis, engine):
    """Retried before the cause is gone, the message is back in its row, and can be retried again."""
    payload = stranger(library, "31000000017")
    distrusted(on_redis, payload)
    retry(1, ME, on_redis)

    distrusted(on_redis, payload)

    [row] = rows(engine)
    assert (row.state, row.times) == ("kept", 2)
    assert retry(1, ME, on_redis).startswith("Requeued")


def test_the_answer_to_another_payload_settles_nothing(library, on_redis, perform, engine):
    """The event id was answered for another scan: what is in quarantine stays there."""
    one, other = library.request()[1][0], library.request()[1][0]
    payload = library.scan(one)
    perform(RETURN_HANDLER, payload)
    perform(RETURN_HANDLER, library.scan(other, event_id=payload["event_id"]))
    with engine.begin() as connection:
        connection.execute(update(quarantine).values(state="retried"))

    assert sweep(on_redis).settled == 0


def test_a_broker_that_is_away_changes_nothing(library, here, engine, tmp_path):
    """A retry without a broker is refused in words, and the message is kept as it was."""
    away = replace(here, dead_letters=lambda: open_dead_letters(lambda: Connection(f"redis+socket://{tmp_path}/none")))
    distrusted(away, stranger(library, "31000000017"))

    with pytest.raises(DecisionRefusedError, match="did not accept it"):
        retry(1, ME, away)

    assert [row.state for row in rows(engine)] == ["kept"]


def test_a_drop_needs_a_reason_and_leaves_a_record(library, here, engine):
    """Dropped, the body is erased; who, when and why stays, and nothing more can be decided."""
    distrusted(here, stranger(library, "31000000017"))

    with pytest.raises(DecisionRefusedError, match="needs a reason"):
        drop(1, Operator("a test", " "), here)
    drop(1, ME, here)

    [row] = rows(engine)
    assert (row.state, row.body, row.reason, row.decision_reason) == ("dropped", "", "unknown_station", "because")
    with pytest.raises(DecisionRefusedError, match="dropped already"):
        drop(1, ME, here)


def test_what_is_cut_cannot_be_put_back(library, on_redis, perform):
    """A message of which not all is kept is not sent as if it were."""
    perform(RETURN_HANDLER, larger(library.scan("31000000017")))

    with pytest.raises(DecisionRefusedError, match="larger than the quarantine stores"):
        retry(1, ME, on_redis)


def test_bodies_go_when_their_time_is_over(library, here, clock, engine):
    """What nobody decided about is erased after its days; the record goes a year later."""
    distrusted(here, stranger(library, "31000000017"))

    clock.now += timedelta(days=29)
    assert sweep(here).erased == 0
    clock.now += timedelta(days=1, seconds=1)
    assert sweep(here).erased == 1

    [row] = rows(engine)
    assert (row.state, row.body, row.reason) == ("expired", "", "unknown_station")
    clock.now += timedelta(days=365)
    sweep(here)
    assert rows(engine) == []


# Dead letters


def test_dead_letters_are_gathered(with_any, any_broker_url, sqlite_library, sqlite_engine):
    """Each dead letter is a row with its reason, its queue and its body; the broker has none left."""
    event = sqlite_library.scan("31000000017")
    headers = task_headers(PROCESS_SCAN, event["event_id"], origin="a test")
    lost = {"x-quarantine-reason": "lost_too_often", "x-quarantine-queue": RETURNS_QUEUE}
    body = task_body(json.dumps(event))
    json_text = {"content_type": "application/json", "content_encoding": "utf-8"}
    publish(any_broker_url, DEAD_LETTER_QUEUE, body, headers=headers | lost, reply_to="reply.main-desk-1", **json_text)
    publish(any_broker_url, DEAD_LETTER_QUEUE, b"\x80\x00no json", content_type="application/octet-stream")

    assert collect_dead_letters(with_any) == 2

    event_row, garbage = rows(sqlite_engine)
    assert (event_row.reason, event_row.queue, event_row.task) == ("lost_too_often", RETURNS_QUEUE, PROCESS_SCAN)
    assert (event_row.station, event_row.event_id) == ("main-desk-1", event["event_id"])
    assert (garbage.reason, garbage.encoding) == ("malformed", "base64")
    assert collect_dead_letters(with_any) == 0


def test_a_gathered_letter_goes_back_as_it_was(with_any, any_broker_url, sqlite_library, sqlite_engine):
    """A letter that is retried is on its queue with body, headers and reply queue, and without the marks of its death."""
    event = sqlite_library.scan("31000000017")
    headers = task_headers(PROCESS_SCAN, event["event_id"], origin="a test")
    lost = {"x-quarantine-reason": "lost_too_often", "x-quarantine-queue": RETURNS_QUEUE}
    body = task_body(json.dumps(event))
    json_text = {"content_type": "application/json", "content_encoding": "utf-8"}
    publish(any_broker_url, DEAD_LETTER_QUEUE, body, headers=headers | lost, reply_to="reply.main-desk-1", **json_text)
    collect_dead_letters(with_any)

    retry(1, ME, with_any)

    with taken(any_broker_url, RETURNS_QUEUE) as [message]:
        assert (message.body if isinstance(message.body, str) else message.body.decode()) == body
        assert message.headers == headers
        assert message.properties["reply_to"] == "reply.main-desk-1"
        assert message.content_type == "application/json"


def test_killed_between_row_and_broker_it_is_one_row(with_any, any_broker_url, sqlite_engine):
    """A sweep that dies when the row is committed leaves the letter; the next one makes no second row of it."""
    publish(any_broker_url, DEAD_LETTER_QUEUE, b"rubbish", content_type="application/octet-stream")
    publish(any_broker_url, DEAD_LETTER_QUEUE, b"other rubbish", content_type="application/octet-stream")

    class Killed(BaseException):
        """As by a signal."""

    class Dying:
        """Letters whose reader dies before it lets go of them."""

        def __init__(self, letters):
            self.peek = letters.peek

        def remove(self, letters):
            raise Killed

    @contextmanager
    def dying():
        with with_any.dead_letters() as letters:
            yield Dying(letters)

    with pytest.raises(Killed):
        collect_dead_letters(replace(with_any, dead_letters=dying))
    assert collect_dead_letters(with_any) == 2

    assert [row.body for row in rows(sqlite_engine)] == ["rubbish", "other rubbish"]


def test_what_no_worker_can_read_is_not_put_back(on_redis, broker_url):
    """Rubbish would only come back: it can be dropped, and not retried."""
    publish(broker_url, DEAD_LETTER_QUEUE, b"rubbish", content_type="application/octet-stream")
    collect_dead_letters(on_redis)

    with pytest.raises(DecisionRefusedError, match="come back"):
        retry(1, ME, on_redis)


def test_a_letter_that_names_another_queue_is_not_put_there(on_redis, broker_url):
    """The queue's name came from outside: nothing is put on a station's queue."""
    headers = task_headers(SWEEP_OUTBOX, "x", origin="a test")
    marks = {"x-quarantine-reason": "lost_too_often", "x-quarantine-queue": "reply.main-desk-1"}
    publish(broker_url, DEAD_LETTER_QUEUE, "[[], {}, null]", headers=headers | marks, content_type="application/json")
    collect_dead_letters(on_redis)

    with pytest.raises(DecisionRefusedError, match="not a queue that a worker consumes"):
        retry(1, ME, on_redis)


# Workers


RUBBISH: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no JSON": (b"\x80\x04 no json", {"content_type": "application/json", "content_encoding": "utf-8"}, "malformed"),
    "bytes": (b"\x80\x04 no json", {"content_type": "application/octet-stream"}, "malformed"),
    "no such encoding": (b"[]", {"content_type": "application/json", "content_encoding": "rot-13"}, "malformed"),
    "no task": (b'{"barcode": "1"}', {"content_type": "application/json", "content_encoding": "utf-8"}, "malformed"),
    "an unknown task": (
        b"[[1], {}, null]",
        {"content_type": "application/json", "content_encoding": "utf-8", "headers": {"task": "no.such", "id": "x"}},
        "unknown_task",
    ),
    "a task that is a list": (
        b"[[1], {}, null]",
        {"content_type": "application/json", "content_encoding": "utf-8", "headers": {"task": ["x"], "id": "x"}},
        "malformed",
    ),
    "other arguments": (
        b"[[1, 2, 3], {}, null]",
        {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "headers": task_headers(PROCESS_SCAN, "x", origin="a test"),
        },
        "rejected",
    ),
    "a limit that is none": (
        b"[[1], {}, null]",
        {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "headers": task_headers(PROCESS_SCAN, "x", origin="a test") | {"timelimit": 7},
        },
        "rejected",
    ),
}


@pytest.mark.long
def test_a_returns_worker_lives_with_anything(
    any_broker_url, sqlite_url, sqlite_library, tmp_path, sqlite_engine, with_any
):
    """Rubbish of every kind is kept with its reason, and the same worker answers the scan behind it."""
    wire = Wire(any_broker_url)
    for body, properties, _ in RUBBISH.values():
        publish(any_broker_url, RETURNS_QUEUE, body, **properties)
    _, [barcode] = sqlite_library.request()
    bad = [
        sqlite_library.scan(barcode, key="not-the-key"),
        sqlite_library.scan(barcode, station="nobody-desk-9"),
        larger(sqlite_library.scan(barcode)),
        {**sqlite_library.scan(barcode), "type": "bookdrop.barcode-scanned.v9"},
    ]

    with worker("returns", broker_url=any_broker_url, database_url=sqlite_url, folder=tmp_path) as process:
        refused = wire.answers(*map(wire.send, bad))
        [reply] = wire.answers(wire.send(sqlite_library.scan(barcode)))
        wire.send(sqlite_library.scan("31000000017", event_id=reply["event_id"]))
        wire.wait(lambda: len(wire.replies()) == 6)
        until(lambda: collect_dead_letters(with_any) + len(rows(sqlite_engine)) == len(RUBBISH) + 5)
        assert process.poll() is None
    wire.close()

    assert reply["outcome"] == "returned"
    assert [each["reason"] for each in refused] == ["bad_signature", "unknown_station", "oversize", "unknown_version"]
    wanted = [reason for _, _, reason in RUBBISH.values()] + [each["reason"] for each in refused]
    assert sorted(reasons(sqlite_engine)) == sorted([*wanted, "other_payload"])
    assert "no json" not in (tmp_path / "returns.log").read_text()


def test_stations_know_which_refusals_are_not_the_last_word():
    """What a worker sets apart is what a station expects another answer to."""
    assert set(MESSAGES) == PROVISIONAL_REASONS
