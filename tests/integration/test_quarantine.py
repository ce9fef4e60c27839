# SPDX-License-Identifier: Apache-2.0
"""The quarantine on both brokers: every message is stored with its reason, the worker survives, an operator decides."""

import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from kombu import Connection, Producer
from sqlalchemy import insert, select, update

from schemas import signing
from schemas.models import Branch, QuarantinedMessage, RequestEvent, Station, table
from schemas.reasons import PROVISIONAL_REASONS
from schemas.task_message import task_body, task_headers
from schemas.topology import (
    DEAD_LETTER_QUEUE,
    PROCESS_SCAN,
    RETURNS_QUEUE,
    SWEEP_OUTBOX,
)
from tasks.events import validation
from tasks.events.processing import process_in
from tasks.operator import Operator
from tasks.ports import REDELIVERY_HEADERS
from tasks.quarantine.actions import DecisionRefusedError, drop, retry
from tasks.quarantine.maintenance import collect_dead_letters, sweep
from tasks.quarantine.rejection import MESSAGES, Received
from tasks.returns.handler import RETURN_HANDLER
from tests.library import KEY
from tests.polling import wait_until
from tests.task_context import POLICY
from workers.dead_letters import open_dead_letters
from workers.runtime.queues import queue_declaration

ME = Operator("a test", "because")
quarantine = table(QuarantinedMessage)


@pytest.fixture
def with_broker(context, broker_url):
    """The context of a worker's tasks, with a broker."""
    return replace(context, dead_letters=lambda: open_dead_letters(lambda: Connection(broker_url)))


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


def only_message(url, queue):
    """The only message in a queue, removed from it."""
    with Connection(url) as connection:
        channel: Any = connection.channel()
        message = channel.message_to_python(channel.basic_get(queue, no_ack=True))
        assert channel.basic_get(queue) is None
    return message


def oversized(payload):
    """The same event with a large unknown field, which the signature covers."""
    payload = payload | {"padding": "x" * validation.MAX_EVENT_BYTES}
    return payload | {"signature": signing.sign(payload, KEY.encode())}


# Rejected messages


def test_oversized_message_is_refused_and_truncated(library, handle, engine):
    """It is refused and quarantined up to the size limit, although its signature is right."""
    _, [barcode] = library.request()

    [reply] = handle(RETURN_HANDLER, oversized(library.scan(barcode)))

    assert (reply.outcome, reply.reason) == ("refused", "oversize")
    [row] = rows(engine)
    assert (row.reason, row.whole) == ("oversize", False)


def test_deeply_nested_message_is_quarantined(library, handle, engine):
    """A message that cannot be JSON is quarantined with its reason."""
    _, [barcode] = library.request()
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    bad = library.scan(barcode) | {"padding": deep}

    [reply] = handle(RETURN_HANDLER, bad)

    assert reply.reason == "bad_schema"
    assert reasons(engine) == ["bad_schema"]


def test_resent_message_increments_its_row(library, handle, engine):
    """A station that resends a message adds no row; another message adds one."""
    _, [barcode] = library.request()
    bad = library.scan(barcode, key="not-the-key")

    for _ in range(3):
        handle(RETURN_HANDLER, bad)
    handle(RETURN_HANDLER, library.scan(barcode, key="not-the-key"))

    assert [row.times for row in rows(engine)] == [3, 1]


# Decisions


def scan_of_unknown_station(library, barcode):
    return library.scan(barcode, station="west-desk-1")


def add_station(engine):
    with engine.begin() as connection:
        branch = connection.execute(select(Branch.id).limit(1)).scalar_one()
        connection.execute(insert(Station).values(code="west-desk-1", branch_id=branch, key=KEY, active=True))


def process_invalid(context, payload):
    with context.unit_of_work() as uow:
        process_in(uow, [Received(payload, "reply.west-desk-1", PROCESS_SCAN)], RETURN_HANDLER, POLICY)


@pytest.mark.databases("sqlite")
@pytest.mark.brokers("redis", "rabbitmq")
def test_retry_publishes_the_original_message(library, with_broker, broker_url, engine):
    """The requeued message has the original event, task, id and reply queue."""
    payload = scan_of_unknown_station(library, "31000000017")
    process_invalid(with_broker, payload)

    retry(1, ME, with_broker)

    message = only_message(broker_url, RETURNS_QUEUE)
    assert json.loads(message.body)[0] == [payload]
    assert (message.headers["task"], message.headers["id"]) == (PROCESS_SCAN, payload["event_id"])
    assert message.properties["reply_to"] == "reply.west-desk-1"
    [row] = rows(engine)
    assert (row.state, row.decided_by, row.decision_reason) == ("retried", "a test", "because")


def test_successful_retry_settles_its_row(library, with_broker, engine):
    """Once the station is known, the retried event is processed; its row is settled and its body deleted."""
    _, [barcode] = library.request()
    payload = scan_of_unknown_station(library, barcode)
    process_invalid(with_broker, payload)
    retry(1, ME, with_broker)
    assert sweep(with_broker).settled == 0

    add_station(engine)
    process_invalid(with_broker, payload)

    assert sweep(with_broker).settled == 1
    [row] = rows(engine)
    assert (row.state, row.body, row.decided_by) == ("settled", "", "a test")
    with engine.connect() as connection:
        assert len(connection.execute(select(RequestEvent.id)).all()) == 1


def test_failed_retry_returns_to_its_row(library, with_broker, engine):
    """Retried before the cause is removed, the message is in its row again, and can be retried again."""
    payload = scan_of_unknown_station(library, "31000000017")
    process_invalid(with_broker, payload)
    retry(1, ME, with_broker)

    process_invalid(with_broker, payload)

    [row] = rows(engine)
    assert (row.state, row.times) == ("kept", 2)
    assert retry(1, ME, with_broker).startswith("Requeued")


def test_reply_to_another_payload_settles_nothing(library, with_broker, handle, engine):
    """The event id has a reply to another scan: the quarantined message stays."""
    one, other = library.request()[1][0], library.request()[1][0]
    payload = library.scan(one)
    handle(RETURN_HANDLER, payload)
    handle(RETURN_HANDLER, library.scan(other, event_id=payload["event_id"]))
    with engine.begin() as connection:
        connection.execute(update(quarantine).values(state="retried"))

    assert sweep(with_broker).settled == 0


def test_retry_without_a_broker_is_refused(library, context, engine, tmp_path):
    """A retry without a broker is refused, and the message is unchanged."""
    away = replace(
        context, dead_letters=lambda: open_dead_letters(lambda: Connection(f"redis+socket://{tmp_path}/none"))
    )
    process_invalid(away, scan_of_unknown_station(library, "31000000017"))

    with pytest.raises(DecisionRefusedError, match="did not accept it"):
        retry(1, ME, away)

    assert [row.state for row in rows(engine)] == ["kept"]


def test_drop_needs_a_reason_and_keeps_a_record(library, context, engine):
    """The body of a dropped message is erased; operator, time and reason stay, and no second decision is possible."""
    process_invalid(context, scan_of_unknown_station(library, "31000000017"))

    with pytest.raises(DecisionRefusedError, match="needs a reason"):
        drop(1, Operator("a test", " "), context)
    drop(1, ME, context)

    [row] = rows(engine)
    assert (row.state, row.body, row.reason, row.decision_reason) == ("dropped", "", "unknown_station", "because")
    with pytest.raises(DecisionRefusedError, match="dropped already"):
        drop(1, ME, context)


def test_truncated_message_is_not_retried(library, with_broker, handle):
    """A message that is not stored completely cannot be requeued."""
    handle(RETURN_HANDLER, oversized(library.scan("31000000017")))

    with pytest.raises(DecisionRefusedError, match="larger than the quarantine stores"):
        retry(1, ME, with_broker)


def test_bodies_are_erased_after_their_retention(library, context, clock, engine):
    """Without a decision the body is erased after its retention; the record is deleted a year later."""
    process_invalid(context, scan_of_unknown_station(library, "31000000017"))

    clock.now += timedelta(days=29)
    assert sweep(context).erased == 0
    clock.now += timedelta(days=1, seconds=1)
    assert sweep(context).erased == 1

    [row] = rows(engine)
    assert (row.state, row.body, row.reason) == ("expired", "", "unknown_station")
    clock.now += timedelta(days=365)
    sweep(context)
    assert rows(engine) == []


# Dead letters


@pytest.mark.databases("sqlite")
@pytest.mark.brokers("redis", "rabbitmq")
def test_dead_letters_are_collected(with_broker, broker_url, library, engine):
    """Each dead letter is a row with its reason, its queue and its body; the broker has none left."""
    event = library.scan("31000000017")
    headers = task_headers(PROCESS_SCAN, event["event_id"], origin="a test")
    lost = {"x-quarantine-reason": "lost_too_often", "x-quarantine-queue": RETURNS_QUEUE}
    body = task_body(json.dumps(event))
    json_text = {"content_type": "application/json", "content_encoding": "utf-8"}
    publish(broker_url, DEAD_LETTER_QUEUE, body, headers=headers | lost, reply_to="reply.main-desk-1", **json_text)
    publish(broker_url, DEAD_LETTER_QUEUE, b"\x80\x00no json", content_type="application/octet-stream")

    assert collect_dead_letters(with_broker) == 2

    event_row, garbage = rows(engine)
    assert (event_row.reason, event_row.queue, event_row.task) == ("lost_too_often", RETURNS_QUEUE, PROCESS_SCAN)
    assert (event_row.station, event_row.event_id) == ("main-desk-1", event["event_id"])
    assert (garbage.reason, garbage.encoding) == ("malformed", "base64")
    assert collect_dead_letters(with_broker) == 0


@pytest.mark.databases("sqlite")
@pytest.mark.brokers("redis", "rabbitmq")
def test_retried_dead_letter_is_published_unchanged(with_broker, broker_url, library, engine):
    """A retried letter has its body, headers and reply queue, without the headers of its rejection."""
    event = library.scan("31000000017")
    headers = task_headers(PROCESS_SCAN, event["event_id"], origin="a test")
    lost = {"x-quarantine-reason": "lost_too_often", "x-quarantine-queue": RETURNS_QUEUE}
    body = task_body(json.dumps(event))
    json_text = {"content_type": "application/json", "content_encoding": "utf-8"}
    publish(broker_url, DEAD_LETTER_QUEUE, body, headers=headers | lost, reply_to="reply.main-desk-1", **json_text)
    collect_dead_letters(with_broker)

    retry(1, ME, with_broker)

    message = only_message(broker_url, RETURNS_QUEUE)
    assert (message.body if isinstance(message.body, str) else message.body.decode()) == body
    assert {name: value for name, value in message.headers.items() if name not in REDELIVERY_HEADERS} == headers
    assert message.properties["reply_to"] == "reply.main-desk-1"
    assert message.content_type == "application/json"


@pytest.mark.databases("sqlite")
@pytest.mark.brokers("redis", "rabbitmq")
def test_letter_is_collected_once_after_a_kill(with_broker, broker_url, engine):
    """A sweep that is killed after its commit leaves the letter in the broker; the next one creates no second row."""
    publish(broker_url, DEAD_LETTER_QUEUE, b"malformed", content_type="application/octet-stream")
    publish(broker_url, DEAD_LETTER_QUEUE, b"other malformed", content_type="application/octet-stream")

    class Killed(BaseException):
        """As by a signal."""

    class Dying:
        """Dead letters whose collector is killed before it removes them."""

        def __init__(self, letters):
            self.peek = letters.peek

        def remove(self, letters):
            raise Killed

    @contextmanager
    def dying():
        with with_broker.dead_letters() as letters:
            yield Dying(letters)

    with pytest.raises(Killed):
        collect_dead_letters(replace(with_broker, dead_letters=dying))
    assert collect_dead_letters(with_broker) == 2

    assert [row.body for row in rows(engine)] == ["malformed", "other malformed"]


def test_malformed_letter_is_not_retried(with_broker, broker_url):
    """A malformed message would be rejected again: it can be dropped, and not retried."""
    publish(broker_url, DEAD_LETTER_QUEUE, b"malformed", content_type="application/octet-stream")
    collect_dead_letters(with_broker)

    with pytest.raises(DecisionRefusedError, match="come back"):
        retry(1, ME, with_broker)


def test_letter_naming_another_queue_is_not_requeued_there(with_broker, broker_url):
    """The queue's name in the headers is untrusted: no message is put into a station's queue."""
    headers = task_headers(SWEEP_OUTBOX, "x", origin="a test")
    marks = {"x-quarantine-reason": "lost_too_often", "x-quarantine-queue": "reply.main-desk-1"}
    publish(broker_url, DEAD_LETTER_QUEUE, "[[], {}, null]", headers=headers | marks, content_type="application/json")
    collect_dead_letters(with_broker)

    with pytest.raises(DecisionRefusedError, match="not a queue that a worker consumes"):
        retry(1, ME, with_broker)


# Workers


MALFORMED: dict[str, tuple[Any, dict[str, Any], str]] = {
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


@pytest.mark.databases("sqlite")
@pytest.mark.brokers("redis", "rabbitmq")
@pytest.mark.long
def test_returns_worker_survives_malformed_messages(broker_url, deployment, raw_station, library, engine, with_broker):
    """Malformed messages of every kind are quarantined, and the same worker processes the scan behind them."""
    for body, properties, _ in MALFORMED.values():
        publish(broker_url, RETURNS_QUEUE, body, **properties)
    _, [barcode] = library.request()
    bad = [
        library.scan(barcode, key="not-the-key"),
        library.scan(barcode, station="north-desk-1", key="not-the-key"),
        oversized(library.scan(barcode)),
        {**library.scan(barcode), "type": "bookdrop.barcode-scanned.v9"},
    ]

    with deployment.worker("returns") as process:
        refused = raw_station.replies_to(*map(raw_station.send, bad))
        [reply] = raw_station.replies_to(raw_station.send(library.scan(barcode)))
        raw_station.send(library.scan("31000000017", event_id=reply["event_id"]))
        raw_station.wait_until(lambda: len(raw_station.replies()) == 6)
        wait_until(lambda: collect_dead_letters(with_broker) + len(rows(engine)) == len(MALFORMED) + 5)
        assert process.poll() is None

    assert reply["outcome"] == "returned"
    assert [each["reason"] for each in refused] == ["bad_signature", "bad_signature", "oversize", "unknown_version"]
    wanted = [reason for _, _, reason in MALFORMED.values()] + [each["reason"] for each in refused]
    assert sorted(reasons(engine)) == sorted([*wanted, "other_payload"])
    assert "no json" not in deployment.log("returns")


def test_provisional_reasons_are_those_of_the_quarantine():
    """A station expects another reply after exactly the refusals that the quarantine causes."""
    assert set(MESSAGES) == PROVISIONAL_REASONS
