# SPDX-License-Identifier: Apache-2.0
"""An attacker who reaches Celery's remote control, as Flower's user does: workers answer ping and inspection, nothing else."""

from typing import Any

import pytest
from celery import Celery
from celery.worker.control import Panel
from kombu import Connection, Exchange, Producer

from schemas.topology import RETURNS_QUEUE
from tests.polling import wait_until
from workers.runtime.remote_control import PERMITTED

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite"), pytest.mark.brokers("redis", "rabbitmq")]

ARGUMENTS: dict[str, dict[str, Any]] = {
    "revoke": {"task_id": "x"},
    "revoke_by_stamped_headers": {"headers": {"a": "b"}},
    "terminate": {"task_id": "x", "signal": "KILL"},
    "rate_limit": {"task_name": "returns.process_scan", "rate_limit": "1/h"},
    "time_limit": {"task_name": "returns.process_scan", "hard": 0.1},
    "election": {"id": "x", "topic": "task", "action": {"task": "printing.sweep"}},
    "add_consumer": {"queue": "dead-letter"},
    "cancel_consumer": {"queue": RETURNS_QUEUE},
    "autoscale": {"max": 0, "min": 0},
    "pool_shrink": {"n": 2},
    "hello": {"from_node": "x", "revoked": {}},
    "memdump": {"samples": 10},
    "query_task": {"ids": ["x"]},
}
REFUSED = sorted(set(Panel.data) - set(PERMITTED))
"""Every command of Celery that is not permitted, aliases included."""

CONTROL = Exchange("celery.pidbox", "fanout", durable=False)


@pytest.fixture
def client(broker_url):
    """The remote control of another Celery application on the same broker."""
    application = Celery("attacker", broker=broker_url, set_as_current=False)
    yield application.control
    application.close()


def broadcast(url: str, body: Any, **properties: Any) -> None:
    """Publish to the exchange of remote control."""
    with Connection(url) as connection:
        Producer(connection.default_channel).publish(body, exchange=CONTROL, declare=[CONTROL], **properties)


def test_commands_outside_ping_and_inspection_are_refused(deployment, raw_station, library, client):
    """Each other command of Celery gets a refusal. The worker runs, consumes, has its pool, and answers the next scan."""
    with deployment.worker("returns") as process:
        raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))
        inspect = client.inspect(timeout=20, limit=1)
        before = pool_and_queues(inspect)
        replies = {
            command: client.broadcast(command, arguments=ARGUMENTS.get(command, {}), reply=True, timeout=20, limit=1)
            for command in REFUSED
        }
        for command in REFUSED:  # without a reply
            client.broadcast(command, arguments=ARGUMENTS.get(command, {}))
        [reply] = raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))
        after = pool_and_queues(inspect)
        is_alive = process.poll() is None

    assert {"shutdown", "revoke", "cancel_consumer", "pool_grow", "rate_limit", "report"} <= set(REFUSED)
    for command, [answer] in replies.items():
        assert "not permitted" in str(answer), command
    assert is_alive
    assert before == after
    assert reply["outcome"] == "returned"


def pool_and_queues(inspect):
    """Processes, consumed queues and revoked tasks of the one worker."""
    [statistics], [queues], [revoked] = (
        list((found or {}).values()) for found in (inspect.stats(), inspect.active_queues(), inspect.revoked())
    )
    return statistics["pool"]["processes"], [queue["name"] for queue in queues], revoked


def test_ping_and_inspection_are_answered(deployment, client):
    """Every permitted command gets a reply, and a request's arguments are in none."""
    with deployment.worker("returns"):
        wait_until(lambda: client.inspect(timeout=2).ping(), "the worker answers")
        replies = {command: client.broadcast(command, reply=True, timeout=20, limit=1) for command in PERMITTED}

    for command, [answer] in replies.items():
        assert "not permitted" not in str(answer), command
        assert "error" not in next(iter(answer.values())), command


PING: dict[str, Any] = {"method": "ping", "arguments": {}, "destination": None}
JSON: dict[str, Any] = {"content_type": "application/json", "content_encoding": "utf-8"}
MALFORMED: list[tuple[Any, dict[str, Any]]] = [
    # the reply would go to another queue
    (PING | {"reply_to": {"exchange": "", "routing_key": "print-actions"}}, {}),
    (PING | {"reply_to": {"exchange": "another.exchange", "routing_key": "x"}}, {}),
    (PING | {"reply_to": "print-actions"}, {}),
    (PING | {"reply_to": {"exchange": "reply.celery.pidbox"}}, {}),
    # other types, and a regular expression that takes for ever
    (PING | {"destination": "x"}, {}),
    (PING | {"destination": {"x": 1}}, {}),
    (PING | {"pattern": "(a+)+$", "matcher": "pcre"}, {}),
    (PING | {"method": None}, {}),
    (PING | {"method": {"x": 1}}, {}),
    (PING | {"method": "x" * 100_000}, {}),
    (PING | {"ticket": ["x"], "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "x"}}, {}),
    (PING | {"arguments": [1, 2]}, {}),
    (PING | {"arguments": {"state": 1, "self": 2}}, {}),
    # unreadable
    (b"[" * 100_000, JSON),
    (b"\xff\xfe", JSON),
    (b"cos\nsystem\n(S'true'\ntR.", {"content_type": "application/x-python-serialize", "content_encoding": "binary"}),
    (b"[1, 2]", JSON),
    (b'{"method": "ping"}', {**JSON, "headers": {"clock": "x"}}),
]


def test_malformed_command_has_no_effect(deployment, client, broker_url):
    """A malformed or unreadable command does not close the worker's channel and leads to no reply in another queue."""
    with deployment.worker("returns") as process:
        wait_until(lambda: client.inspect(timeout=2).ping(), "the worker answers")
        for body, properties in MALFORMED:
            broadcast(broker_url, body, **properties)
        wait_until(lambda: client.inspect(timeout=2).ping(), "the worker answers the next one")
        is_alive = process.poll() is None
        found = queue_lengths(broker_url, "print-actions")
        log = deployment.log("returns")

    assert is_alive
    assert found == 0
    assert log.count("remote_control_refused") >= len(MALFORMED) - 3  # the last three arguments have no effect
    assert "Connection to broker lost" not in log
    assert "Traceback" not in log


def queue_lengths(url, queue):
    """Number of messages in `queue`; 0 if it is not declared."""
    with Connection(url) as connection:
        channel: Any = connection.default_channel
        try:
            return channel.queue_declare(queue, passive=True).message_count
        except connection.channel_errors:
            return 0
