# SPDX-License-Identifier: Apache-2.0
"""A message on which a worker fails, at any point between receiving it and the pool, harms itself alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection
from sqlalchemy import func, select
from uuid6 import uuid7

from schemas.models import RequestEvent
from schemas.topology import DELIVERY_LIMIT, PROCESS_SCAN, RETURNS_QUEUE
from tasks.quarantine.dead_letter import quarantine_row
from tests import handover_faults
from tests.library import Library
from tests.polling import wait_until
from tests.rabbitmq import rabbitmqctl
from workers.dead_letters import open_dead_letters

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite"), pytest.mark.brokers("redis", "rabbitmq")]

ROOT = Path(__file__).parents[2]
OPTIONS = ("-I", "tests.handover_faults", "-c", "2", "--without-gossip", "--without-mingle", "-l", "INFO")
EXPECTED = {
    handover_faults.CHECK: ("handover_failed", "OSError"),
    handover_faults.CONSTRUCTION: ("handover_failed", "OverflowError"),
    handover_faults.STRATEGY: ("handover_failed", "KeyError"),
    handover_faults.SERIALISATION: ("handover_failed", "RecursionError"),
}
"""Reason and detail of the dead letter of each fault."""


def faulty(fault: str) -> dict[str, Any]:
    """An unsigned event that causes `fault`."""
    return {"event_id": str(uuid7()), "station": "main-desk-1", "barcode": f"fault-{fault}-"}


def dead_letters(url: str) -> list[dict[str, Any]]:
    """The dead letters as rows of the quarantine. They stay in their queue."""
    with open_dead_letters(lambda: Connection(url)) as letters:
        return [quarantine_row(letter) for letter in letters.peek(500)]


def count_events(library: Library) -> int:
    with library.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(RequestEvent)).scalar_one()


@pytest.mark.parametrize("batching", ["true", "false"])
def test_failed_hand_over_releases_its_slot(deployment, raw_station, library, batching):
    """More failing messages than the worker has processes, at each point: all become dead letters, scans get replies."""
    with deployment.celery_worker(*OPTIONS, PYTHONPATH=str(ROOT), BOOKDROP_BATCHING=batching) as process:
        honest = [raw_station.send(library.scan(library.request()[1][0]))]
        raw_station.replies_to(*honest)
        for fault in handover_faults.HANDOVER_FAULTS:
            for _ in range(5):
                raw_station.send(faulty(fault), task=PROCESS_SCAN)
            honest.append(raw_station.send(library.scan(library.request()[1][0])))
        honest += [raw_station.send(library.scan(library.request()[1][0])) for _ in range(4)]
        replies = raw_station.replies_to(*honest)
        wanted = 5 * len(handover_faults.HANDOVER_FAULTS)
        wait_until(lambda: len(dead_letters(deployment.broker_url)) >= (wanted if batching == "true" else wanted - 5))
        assert process.poll() is None

    assert {reply["outcome"] for reply in replies} == {"returned"}
    assert count_events(library) == 1 + len(handover_faults.HANDOVER_FAULTS) + 4
    found = sorted((row["reason"], row["detail"]) for row in dead_letters(deployment.broker_url))
    faults = [fault for fault in EXPECTED if batching == "true" or fault != handover_faults.STRATEGY]
    assert found == sorted(EXPECTED[fault] for fault in faults for _ in range(5))


def test_message_that_ends_its_worker_reaches_the_delivery_limit(deployment, raw_station, library, request):
    """A worker ends by an error at the same message again and again: each end counts, and at the limit it is a dead letter."""
    is_rabbitmq = deployment.broker_url.startswith("amqp")
    with deployment.celery_worker(*OPTIONS, PYTHONPATH=str(ROOT)):
        raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))
    raw_station.send(faulty(handover_faults.END), task=PROCESS_SCAN)

    counts = []
    for _ in range(2):
        with deployment.celery_worker(*OPTIONS, PYTHONPATH=str(ROOT)) as process:
            code = wait_until(lambda: process.poll() is not None and (process.poll(),))
        assert code != (0,)
        counts.append(_losses(request, deployment.broker_url))
    _reach_limit(request, is_rabbitmq)
    ends = 0
    while not dead_letters(deployment.broker_url) and ends < 3:
        with deployment.celery_worker(*OPTIONS, PYTHONPATH=str(ROOT)) as process:
            wait_until(lambda: process.poll() is not None or dead_letters(deployment.broker_url))
        ends += 1
    with deployment.celery_worker(*OPTIONS, PYTHONPATH=str(ROOT)) as process:
        [reply] = raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))
        assert process.poll() is None

    assert counts[1] > counts[0]
    assert [row["reason"] for row in dead_letters(deployment.broker_url)] == ["lost_too_often"]
    assert reply["outcome"] == "returned"


def _losses(request: pytest.FixtureRequest, url: str) -> int:
    """How often the broker has counted a loss of the only message in the queue."""
    if url.startswith("amqp"):
        with Connection(url) as connection:
            channel: Any = connection.default_channel
            message: Any = wait_until(lambda: channel.basic_get(RETURNS_QUEUE))
            channel.basic_reject(message.delivery_tag, requeue=True)
        return int(message.headers.get("x-delivery-count", 0))
    client: redis.Redis = request.getfixturevalue("valkey")
    [raw] = client.lrange(RETURNS_QUEUE, 0, -1)
    counted = client.hgetall("unacked_deliveries")
    return int(json.loads(raw)["headers"].get("redelivered", False)) + sum(map(int, counted.values()))


def _reach_limit(request: pytest.FixtureRequest, is_rabbitmq: bool) -> None:
    """Bring the message close to its limit: the broker counts the next losses itself."""
    if is_rabbitmq:
        host = request.getfixturevalue("rabbitmq")
        rabbitmqctl(
            "set_policy", "-p", host.name, "limit", f"^{RETURNS_QUEUE}$", json.dumps({"delivery-limit": 3}),
            "--apply-to", "queues",
        )  # fmt: skip
        request.addfinalizer(lambda: rabbitmqctl("clear_policy", "-p", host.name, "limit"))
        return
    client: redis.Redis = request.getfixturevalue("valkey")
    [tag] = client.hkeys("unacked_deliveries")
    client.hset("unacked_deliveries", tag, DELIVERY_LIMIT - 1)
