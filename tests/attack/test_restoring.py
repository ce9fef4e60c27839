# SPDX-License-Identifier: Apache-2.0
"""Redis: a message that cannot be returned to its queue becomes a dead letter, and does not stop the others."""

import base64
import contextlib
import json
from typing import Any

import pytest
from kombu import Consumer
from uuid6 import uuid7

from schemas.task_message import task_body, task_headers
from schemas.topology import DEAD_LETTER_QUEUE, PROCESS_SCAN, RETURNS_QUEUE
from tasks.quarantine.dead_letter import quarantine_row
from tests.polling import wait_until
from workers.dead_letters import _from_entry
from workers.redis_transport import Connection
from workers.runtime.queues import queue_declaration

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite"), pytest.mark.brokers("redis")]


def message(payload: object = None, **changes: Any) -> dict[str, Any]:
    """A message as kombu's list entry, changed by `changes`."""
    event_id = payload["event_id"] if isinstance(payload, dict) else str(uuid7())
    return {
        "body": base64.b64encode(task_body(json.dumps(payload)).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": task_headers(PROCESS_SCAN, event_id, origin="a test"),
        "properties": {
            "body_encoding": "base64", "delivery_tag": str(uuid7()), "delivery_mode": 2, "priority": 0,
            "correlation_id": event_id, "reply_to": "reply.main-desk-1",
            "delivery_info": {"exchange": "", "routing_key": RETURNS_QUEUE},
        },
        **changes,
    }  # fmt: skip


def record(entry: object, exchange: object = "", routing_key: object = RETURNS_QUEUE) -> str:
    """The record of an unacknowledged message."""
    return json.dumps([entry, exchange, routing_key])


HOSTILE = {
    "not JSON": "{",
    "not a record": "7",
    "one part": json.dumps([message()]),
    "a message that is a list": record([]),
    "headers that are a list": record(message(headers=["x"])),
    "headers that are text": record(message(headers="x")),
    "no properties": record(message(properties=None)),
    "delivery information that is text": record(message(properties={"delivery_tag": "x", "delivery_info": "x"})),
    "a number of 5000 digits": f'[{json.dumps(message())[:-1]}, "x": {"9" * 5000}}}, "", "{RETURNS_QUEUE}"]',
    "depth": f'[{json.dumps(message())[:-1]}, "x": {"[" * 5000}{"]" * 5000}}}, "", "{RETURNS_QUEUE}"]',
    "a type that kombu does not know": record(message(headers={"x": {"__type__": "code", "__value__": "1"}})),
    "a value that its type refuses": record(message(headers={"x": {"__type__": "datetime", "__value__": "x"}})),
    "a queue that is an object": record(message(), routing_key={"a": 1}),
    "an exchange that is a list": record(message(), exchange=["a"]),
    "a key that is not a list": record(message(), routing_key="a-string"),
}
"""More records than one sweep restores, all newer than the honest ones."""


def hold(valkey: Any, records: dict[str, str], score: float) -> None:
    for tag, raw in records.items():
        valkey.hset("unacked", tag, raw)
        valkey.zadd("unacked_index", {tag: score})


def test_sweep_restores_messages_beside_those_that_cannot_be(valkey, deployment, library):
    """Records of every defect are swept before the honest ones: they become dead letters, and the scans get replies."""
    valkey.set("a-string", "x")
    hold(valkey, HOSTILE, 2.0)
    scans = [library.scan(library.request()[1][0]) for _ in range(3)]
    hold(valkey, {scan["event_id"]: record(message(scan)) for scan in scans}, 1.0)

    with deployment.worker("returns") as process:
        # Read without a consumer of kombu, which would sweep the same records.
        wait_until(lambda: valkey.llen("reply.main-desk-1") >= len(scans))
        wait_until(lambda: valkey.llen(DEAD_LETTER_QUEUE) >= len(HOSTILE))
        wait_until(lambda: valkey.zcard("unacked_index") == 0)
        assert process.poll() is None

    letters = [quarantine_row(_from_entry(raw)) for raw in valkey.lrange(DEAD_LETTER_QUEUE, 0, -1)]
    replies = [json.loads(raw)["body"] for raw in valkey.lrange("reply.main-desk-1", 0, -1)]
    assert {json.loads(base64.b64decode(body))["outcome"] for body in replies} == {"returned"}
    assert [row["reason"] for row in letters] == ["not_restored"] * len(HOSTILE)
    assert {row["body"] for row in letters} == set(HOSTILE.values())
    assert valkey.hlen("unacked") == 0


def test_closing_channel_restores_messages_beside_one_that_cannot_be(valkey, broker_url):
    """TERM's return of messages: the record of one cannot be restored; the others are back in their queue, in order."""
    entries = [message({"event_id": str(uuid7())}) for _ in range(5)]
    for entry in entries:
        valkey.lpush(RETURNS_QUEUE, json.dumps(entry))
    with Connection(broker_url, transport_options={"atomic_receive": True}) as connection:
        received: list[Any] = []
        consumer = Consumer(connection.channel(), [queue_declaration(RETURNS_QUEUE)], on_message=received.append)
        consumer.consume()
        wait_until(lambda: _drained(connection, received, len(entries)))
        tags = [each.delivery_tag for each in received]
        valkey.hset("unacked", tags[2], record(message(headers=["x"])))

    left = [json.loads(raw)["headers"]["id"] for raw in valkey.lrange(RETURNS_QUEUE, 0, -1)]
    assert left == [entries[number]["headers"]["id"] for number in (4, 3, 1, 0)]
    [letter] = valkey.lrange(DEAD_LETTER_QUEUE, 0, -1)
    assert quarantine_row(_from_entry(letter))["reason"] == "not_restored"
    assert valkey.hlen("unacked") == 0


def _drained(connection: Any, received: list[Any], number: int) -> bool:
    with contextlib.suppress(TimeoutError):
        connection.drain_events(timeout=0.2)
    return len(received) >= number
