# SPDX-License-Identifier: Apache-2.0
"""Limits of quarantine, dead letters and reply queues: the oldest content goes first, and its record stays."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from kombu import Connection, Producer
from sqlalchemy import insert, select

from schemas.models import QuarantinedMessage, table
from schemas.publisher_confirms import PublisherConfirms, PublishRejectedError
from schemas.topology import DEAD_LETTER_QUEUE, RETURNS_QUEUE, reply_queue
from tasks.metrics.definitions import DEAD_LETTERS, QUARANTINE_ERASED
from tasks.ports import PendingMessage
from tasks.quarantine.limits import QuarantineLimits
from tasks.quarantine.maintenance import sweep
from tasks.unit_of_work import PublishedRows
from tests.rabbitmq import rabbitmqctl
from workers import publisher
from workers.access_control.queue_limits import policies
from workers.redis_transport import Connection as AtomicConnection
from workers.redis_transport import scripts
from workers.runtime.queues import queue_declaration

quarantine = table(QuarantinedMessage)


def fill(engine: Any, bodies: list[str], **columns: Any) -> None:
    """Quarantine one message for each of `bodies`, in their order."""
    with engine.begin() as connection:
        for body in bodies:
            row = {
                "received_at": datetime.now(UTC), "queue": RETURNS_QUEUE, "reason": "bad_schema", "detail": "", "body": body,
                "size": len(body), "digest": hashlib.sha256(body.encode()).hexdigest(), **columns,
            }  # fmt: skip
            connection.execute(insert(quarantine), row)


def rows(engine: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(quarantine).order_by(quarantine.c.id)).all())


@pytest.mark.parametrize("limits", [QuarantineLimits(messages=3), QuarantineLimits(bytes=30)])
def test_oldest_content_is_erased_at_the_limit(engine, context, limits):
    """Five messages of ten characters, limits for three: the content of the two oldest is erased, their records stay."""
    bodies = [f"message {n:02}" for n in range(5)]
    fill(engine, bodies[:1], state="retried")
    fill(engine, bodies[1:])

    result = sweep(replace(context, quarantine_limits=limits))

    after = rows(engine)
    assert result.over_limit == 2
    assert [row.body for row in after] == ["", "", *bodies[2:]]
    assert [row.state for row in after] == ["expired", "expired", "kept", "kept", "kept"]
    assert [row.size for row in after] == [10] * 5
    assert [row.digest for row in after] == [hashlib.sha256(body.encode()).hexdigest() for body in bodies]
    assert after[0].erased_at is not None
    assert context.metrics.drain().cells[QUARANTINE_ERASED.name, "", 0][0] == 2
    assert sweep(replace(context, quarantine_limits=limits)).over_limit == 0


def test_decision_of_an_erased_message_stays(engine, context):
    """A settled message keeps its state when the limit erases content around it."""
    fill(engine, ["x"], state="settled", erased_at=datetime.now(UTC))
    fill(engine, ["y", "z"])

    sweep(replace(context, quarantine_limits=QuarantineLimits(messages=1)))

    assert [row.state for row in rows(engine)] == ["settled", "expired", "kept"]


@pytest.mark.databases("sqlite")
@pytest.mark.brokers("redis")
def test_dead_letters_on_redis_are_limited(valkey, broker_url, monkeypatch):
    """Beyond the limit the oldest letter is removed, and a large malformed entry keeps its first bytes and its size."""
    monkeypatch.setattr(scripts, "TAKE", scripts.TAKE.replace(f"{scripts.MAX_DEAD_LETTERS} - 1", "3 - 1"))
    for size in (10, 5_000, 3_000_000, 20, 30):
        valkey.lpush(RETURNS_QUEUE, b"x" * size)
    with AtomicConnection(broker_url, transport_options={"atomic_receive": True}) as connection:
        consumer = connection.Consumer([queue_declaration(RETURNS_QUEUE)], on_message=lambda _: None)
        consumer.consume()
        connection.drain_events(timeout=20)

    letters = [json.loads(raw)["headers"] for raw in valkey.lrange(DEAD_LETTER_QUEUE, 0, -1)]
    assert [letter.get("x-quarantine-size") for letter in letters] == [None, None, 3_000_000]
    assert letters[2]["x-quarantine-reason"] == "oversize"
    assert len(valkey.lindex(DEAD_LETTER_QUEUE, 2)) < 2 * scripts.MAX_WRAPPED


@pytest.mark.databases("sqlite")
@pytest.mark.brokers("redis")
def test_replies_that_nobody_reads_are_limited_on_redis(valkey, broker_url, context, monkeypatch):
    """A station that reads nothing keeps the newest replies; the worker trims once for many replies."""
    monkeypatch.setattr(publisher, "MAX_REPLIES", 50)
    queue = reply_queue("main-desk-1")
    sender = publisher.BrokerPublisher(lambda: Connection(broker_url), context.sessions, PublishedRows(), "a test")
    try:
        for number in range(210):
            assert sender.publish_outbox([PendingMessage(None, queue, None, json.dumps(number), None)]) == 1
    finally:
        sender.close()

    assert valkey.llen(queue) == 60
    assert valkey.ttl(queue) > 0


@pytest.mark.databases("sqlite")
@pytest.mark.brokers("rabbitmq")
def test_policies_limit_existing_queues_on_rabbitmq(rabbitmq, request):
    """Queues that exist are limited by the policies: replies and letters lose the oldest, a work queue rejects the newest."""
    queues = (reply_queue("main-desk-1"), DEAD_LETTER_QUEUE, RETURNS_QUEUE)
    with Connection(rabbitmq.url) as connection:
        channel: Any = connection.channel()
        for queue in queues:
            queue_declaration(queue).bind(channel).queue_declare()
        for policy in policies(dead_letters=2, replies=2, work=2):
            rabbitmqctl(
                "set_policy", "-p", rabbitmq.name, "--apply-to", "queues", policy.name, policy.pattern,
                policy.definition_json,
            )  # fmt: skip
            request.addfinalizer(lambda name=policy.name: rabbitmqctl("clear_policy", "-p", rabbitmq.name, name))
        rejected = [queue for queue in queues if not accepts(connection, queue, 5)]
        lengths = [declared(channel, queue) for queue in queues]
        oldest = channel.basic_get(reply_queue("main-desk-1")).body

    assert rejected == [RETURNS_QUEUE]
    assert lengths[:2] == [2, 2]
    assert lengths[2] < 5
    assert oldest in {b"3", "3"}


def declared(channel: Any, queue: str) -> int:
    found: Any = queue_declaration(queue).bind(channel).queue_declare()
    return int(found.message_count)


def accepts(connection: Connection, queue: str, number: int) -> bool:
    """Publish so many messages one by one; False if the server rejects one."""
    channel: Any = connection.channel()
    confirms: PublisherConfirms[None] = PublisherConfirms(channel)
    accepted = True
    for each in range(number):
        Producer(channel).publish(str(each), exchange="", routing_key=queue, delivery_mode=2)
        confirms.track(queue, None)
        try:
            confirms.wait(20.0)
        except PublishRejectedError:
            accepted = False
        confirms.take_confirmed()
    channel.close()
    return accepted


def test_dead_letter_metric_counts_each_reason():
    """The counter has a label for each reason of a dead letter."""
    assert {"malformed", "handover_failed", "not_restored"} <= set(DEAD_LETTERS.values)
