# SPDX-License-Identifier: Apache-2.0
"""A sender without a key may publish to `returns`: nothing that it adds around an event has an effect."""

import base64
import json
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu import Connection, Producer
from sqlalchemy import func, select
from uuid6 import uuid7

from schemas.models import PrintJob, RequestEvent
from schemas.task_message import task_body, task_headers
from schemas.topology import DEAD_LETTER_QUEUE, PROCESS_SCAN, REPRINT_SLIP, RETURNS_QUEUE, SWEEP_OUTBOX
from tests.library import Library
from tests.raw_station import RawStation
from workers.runtime.queues import queue_declaration

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite"), pytest.mark.brokers("redis", "rabbitmq")]

EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
REPRINT = {
    "task": REPRINT_SLIP,
    "args": [str(uuid7()), "an attacker", "because"],
    "kwargs": {},
    "options": {},
    "immutable": True,
}


def body(event: object, embed: dict[str, Any] | None = None) -> bytes:
    return json.dumps([[event], {}, {**EMBED, **(embed or {})}]).encode()


def compressed(raw: bytes) -> bytes:
    return zlib.compress(raw, 9)


def attacks() -> dict[str, dict[str, Any]]:
    """The changes of a valid message by name: its headers, its body, its properties."""
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    event = {"event_id": str(uuid7()), "type": "bookdrop.barcode-scanned.v1"}
    return {
        "callbacks": {"body": body(event, {"callbacks": [REPRINT]})},
        "errbacks": {"body": body({"type": "none"}, {"errbacks": [REPRINT]})},
        "chain": {"body": body(event, {"chain": [REPRINT]})},
        "chord": {"body": body(event, {"chord": REPRINT})},
        "unknown embed": {"body": body(event, {"more": 1})},
        "eta": {"headers": {"eta": (datetime.now(UTC) + timedelta(days=1)).isoformat()}},
        "expired": {"headers": {"expires": past}},
        "time limit": {"headers": {"timelimit": [0.001, None]}},
        "time limit with depth": {"headers": {"timelimit": [5, None]}, "body": b"[[" + b"[" * 900 + b"]" * 900 + b"],{},{}]"},
        "depth": {"body": b"[[" + b"[" * 900 + b"]" * 900 + b"],{}," + json.dumps(EMBED).encode() + b"]"},
        "deep object": {"body": b"[[" + b'{"a":' * 900 + b"1" + b"}" * 900 + b"],{},{}]"},
        "shadow": {"headers": {"shadow": "printing.print_slip"}},
        "long id": {"headers": {"id": "x" * 100_000}},
        "id of another event": {"body": body({"event_id": str(uuid7())})},
        "group": {"headers": {"group": str(uuid7())}},
        "stamps": {"headers": {"stamped_headers": ["a"], "stamps": {"a": ["b"]}}},
        "retries": {"headers": {"retries": 10**9}},
        "negative retries": {"headers": {"retries": -1}},
        "another queue's task": {"headers": {"task": REPRINT_SLIP}},
        "a sweep": {"headers": {"task": SWEEP_OUTBOX}, "body": b"[[],{},{}]"},
        "a task of Celery": {"headers": {"task": "celery.backend_cleanup"}, "body": b"[[],{},{}]"},
        "compression": {"headers": {"compression": "application/x-gzip"}, "body": compressed(b"[" + b" " * 50_000_000)},
        "pickle": {"content_type": "application/x-python-serialize", "body": b"cos\nsystem\n(S'true'\ntR."},
        "latin-1": {"content_encoding": "latin-1"},
        "oversize": {"body": body("x" * 2_000_000)},
        "keyword arguments": {"body": json.dumps([[event], {"self": 1}, EMBED]).encode()},
        "two arguments": {"body": json.dumps([[event, event], {}, EMBED]).encode()},
        "long reply_to": {"reply_to": "reply." + "a" * 240},
        "correlation id": {"correlation_id": "x" * 250},
    }  # fmt: skip


def publish(url: str, change: dict[str, Any]) -> None:
    """Publish an unsigned message to `returns`, changed by `change`."""
    event_id = str(uuid7())
    options: dict[str, Any] = {
        "content_type": "application/json", "content_encoding": "utf-8", "reply_to": "reply.main-desk-2",
        "correlation_id": event_id, **change,
    }  # fmt: skip
    headers = {**task_headers(PROCESS_SCAN, event_id, origin="an attacker"), **options.pop("headers", {})}
    content = options.pop("body", None) or task_body(json.dumps({"event_id": event_id})).encode()
    with Connection(url) as connection:
        channel: Any = connection.default_channel
        queue_declaration(RETURNS_QUEUE).bind(channel).queue_declare()
        Producer(channel).publish(content, exchange="", routing_key=RETURNS_QUEUE, headers=headers, **options)


def count_messages(url: str, queue: str) -> int:
    with Connection(url) as connection:
        declared: Any = queue_declaration(queue).bind(connection.default_channel).queue_declare(passive=False)
    return int(declared.message_count)


def count(library: Library, model: Any) -> int:
    with library.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(model)).scalar_one()


def test_rogue_envelopes_are_dead_letters_and_honest_scans_get_replies(broker_url, deployment, raw_station, library):
    """Each attack becomes a dead letter; none has an effect, and scans before, between and behind them get replies."""
    rogue = attacks()

    with deployment.worker("returns") as process:
        for change in rogue.values():
            publish(broker_url, change)
        sent = [raw_station.send(library.scan(library.request()[1][0])) for _ in range(4)]
        replies = raw_station.replies_to(*sent)
        is_alive = process.poll() is None
        raw_station.wait_until(lambda: count_messages(broker_url, DEAD_LETTER_QUEUE) >= len(rogue))

    assert is_alive
    assert {reply["outcome"] for reply in replies} == {"returned"}
    assert count_messages(broker_url, DEAD_LETTER_QUEUE) == len(rogue)
    assert count_messages(broker_url, RETURNS_QUEUE) == 0
    assert count_messages(broker_url, "print-actions") == 0
    assert count(library, RequestEvent) == 4
    assert count(library, PrintJob) == 4


def test_reply_to_another_station_is_not_published(broker_url, deployment, raw_station, library):
    """A signed event whose reply address names another station gets no reply there; the Return itself takes place."""
    eavesdropper = RawStation(broker_url, "main-desk-2")
    payload = library.scan(library.request()[1][0])
    honest = library.scan(library.request()[1][0])
    try:
        with deployment.worker("returns"):
            raw_station.send(payload, reply_to="reply.main-desk-2")
            raw_station.replies_to(raw_station.send(honest))

        assert count(library, RequestEvent) == 2
        assert eavesdropper.received == []
        assert count_messages(broker_url, "reply.main-desk-2") == 0
    finally:
        eavesdropper.close()


@pytest.mark.brokers("redis")
def test_redelivery_ignores_the_delivery_information_of_the_sender(valkey, deployment, raw_station, library):
    """Redis: a message whose delivery information names another queue returns to its own queue when its worker ends."""
    event_id = str(uuid7())
    raw = {
        "body": base64.b64encode(task_body(json.dumps({"event_id": event_id})).encode()).decode(),
        "content-type": "application/json", "content-encoding": "utf-8",
        "headers": task_headers(PROCESS_SCAN, event_id, origin="an attacker"),
        "properties": {
            "body_encoding": "base64", "delivery_tag": str(uuid7()), "delivery_mode": 2, "priority": 0,
            "correlation_id": event_id, "delivery_info": {"exchange": "", "routing_key": "printing.main"},
        },
    }  # fmt: skip
    valkey.lpush(RETURNS_QUEUE, json.dumps(raw))

    with deployment.worker("returns"):
        raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))

    assert valkey.llen("printing.main") <= 1  # the honest scan's print task alone
    assert b"an attacker" not in b"".join(valkey.lrange("printing.main", 0, -1))
