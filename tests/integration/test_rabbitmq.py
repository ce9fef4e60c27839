# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ in full: queues as the contract has them, and nothing published vanishes."""

import json
import re
import subprocess
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any

import amqp
import pytest
from click.testing import CliRunner
from kombu import Connection
from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.orm import sessionmaker
from uuid6 import uuid7

from schemas.models import OutboxEntry
from schemas.publisher_confirms import PublishRejectedError, enable_confirms
from schemas.topology import DEAD_LETTER_QUEUE, PROCESS_SCAN, RETURNS_QUEUE, queue_arguments
from stations.client import StationClient
from stations.transport import EventPublisher, OutgoingEvent
from tasks.unit_of_work import PublishedRows, UnitOfWork
from tests.library import LENDER
from tests.polling import wait_until
from tests.processes import stop
from tests.proxy import Proxy
from tests.rabbitmq import rabbitmqctl, virtual_host
from workers.access_control.rabbitmq import permissions
from workers.bootstrap import connect, utc_now
from workers.cli import main as operations
from workers.publisher import BrokerPublisher
from workers.runtime.queues import queue_declaration
from workers.settings import WorkerSettings

pytestmark = [pytest.mark.databases("sqlite"), pytest.mark.brokers("rabbitmq")]

REPLY_QUEUE = "reply.main-desk-1"


@contextmanager
def publishing(library, url):
    """A worker's publisher, and how to promise it something."""
    settings = WorkerSettings(broker_url=SecretStr(url))
    sessions, settled = sessionmaker(library.engine), PublishedRows()
    made: Any = BrokerPublisher(lambda: connect(settings, confirm_each=False), sessions, settled, "a test")
    made.unit_of_work = lambda: UnitOfWork(sessions, utc_now(), settled)
    yield made
    made.close()


@pytest.fixture
def publisher(library, rabbitmq):
    with publishing(library, rabbitmq.url) as publisher:
        yield publisher


def promise(publisher, queue, body):
    with publisher.unit_of_work() as uow:
        uow.enqueue(queue, body)
    return uow.pending_messages


def waiting(library):
    with library.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(OutboxEntry)).scalar_one()


def bodies(url, queue):
    with Connection(url) as connection:
        channel: Any = connection.default_channel
        found = []
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            found.append(message.body)
        return found


@pytest.mark.long
def test_a_scan_goes_all_the_way(library, rabbitmq, deployment):
    """The URL alone makes it RabbitMQ: a desk scans, the worker answers; all queues are what the contract says."""
    _, [barcode] = library.request()

    with deployment.worker("returns"):
        with StationClient(deployment.station_settings()) as station:
            reply = station.wait(station.scan(barcode), 60)
        told = rabbitmq.queues("type", "arguments")

    assert reply is not None
    assert reply.message == f"The item's destination is {LENDER}"
    assert {RETURNS_QUEUE, DEAD_LETTER_QUEUE, REPLY_QUEUE, "printing.main"} <= set(told)
    assert {name: told[name]["type"] for name in (RETURNS_QUEUE, DEAD_LETTER_QUEUE, "printing.main")} == {
        RETURNS_QUEUE: "quorum", DEAD_LETTER_QUEUE: "quorum", "printing.main": "quorum",
    }  # fmt: skip
    for name in (RETURNS_QUEUE, DEAD_LETTER_QUEUE, REPLY_QUEUE, "printing.main"):
        arguments = {argument: value for argument, _, value in told[name]["arguments"]}
        assert arguments == queue_arguments(name)


@pytest.mark.parametrize("first", ["station", "worker"])
def test_a_reply_queue_is_declared_alike_by_both_sides(publisher, rabbitmq, first):
    """Whoever comes first, the other is not refused; other arguments would be."""

    def station():
        with closing(EventPublisher(rabbitmq.url, "main-desk-1")) as station_publisher:
            station_publisher.publish([OutgoingEvent(str(uuid7()), PROCESS_SCAN, "{}")])

    def a_worker():
        assert publisher.publish_outbox(promise(publisher, REPLY_QUEUE, '"an answer"')) == 1

    for side in (station, a_worker) if first == "station" else (a_worker, station):
        side()

    with Connection(rabbitmq.url) as connection, pytest.raises(amqp.PreconditionFailed):
        channel: Any = connection.default_channel
        channel.queue_declare(REPLY_QUEUE, durable=True, auto_delete=False)


def test_what_a_worker_publishes_for_a_queue_that_is_gone_is_noticed(publisher, library, rabbitmq):
    """The broker says that it had nowhere to put it: the promise stays, and the next publishing makes the queue anew."""
    publisher.publish_outbox(promise(publisher, REPLY_QUEUE, '"one"'))
    rabbitmq.delete(REPLY_QUEUE)

    gone = promise(publisher, REPLY_QUEUE, '"two"')
    published = publisher.publish_outbox(gone)
    kept = waiting(library)
    again = publisher.publish_outbox(gone)
    publisher.flush()

    assert (published, kept, again, waiting(library)) == (0, 1, 1, 0)
    assert bodies(rabbitmq.url, REPLY_QUEUE) == ['"two"']


def test_of_many_that_are_published_together_only_what_has_no_queue_is_kept_back(publisher, library, rabbitmq):
    """One round trip for all: each is with the broker, or its promise stays, whatever becomes of the others."""
    there = [f"reply.main-desk-{n}" for n in (1, 2)]
    for queue in there:
        publisher.publish_outbox(promise(publisher, queue, '"declares it"'))
    rabbitmq.delete(there[1])
    pending_messages = [entry for n in range(40) for entry in promise(publisher, there[n % 2], f'"{n}"')]
    publisher.flush()

    published = publisher.publish_outbox(pending_messages)
    publisher.flush()
    left = waiting(library)
    again = publisher.publish_outbox(pending_messages[1::2])

    assert (published, left, again) == (20, 20, 20)
    assert bodies(rabbitmq.url, there[0]) == ['"declares it"', *(f'"{n}"' for n in range(0, 40, 2))]
    assert bodies(rabbitmq.url, there[1]) == [f'"{n}"' for n in range(1, 40, 2)]


def test_receipts_are_waited_for_in_one_place(rabbitmq):
    """A connection that waits for each itself would take them away: it is refused, instead of a silence of 5 s each time."""
    waiting_each = connect(WorkerSettings(broker_url=SecretStr(rabbitmq.url)))

    with waiting_each, pytest.raises(ValueError, match="confirm_publish"):
        enable_confirms(waiting_each.default_channel)


def test_what_a_station_says_to_a_queue_that_is_gone_is_said_again(rabbitmq):
    """The desk's own connection notices, connects anew, and makes the queue: the scan is there."""
    with closing(EventPublisher(rabbitmq.url, "main-desk-1")) as station_publisher:
        station_publisher.publish([OutgoingEvent(str(uuid7()), PROCESS_SCAN, '{"n":1}')])
        rabbitmq.delete(RETURNS_QUEUE)

        station_publisher.publish([OutgoingEvent(str(uuid7()), PROCESS_SCAN, '{"n":2}')])

    [body] = bodies(rabbitmq.url, RETURNS_QUEUE)
    assert json.loads(body)[0] == [{"n": 2}]


@pytest.mark.usefixtures("rabbitmq")
def test_every_publish_is_confirmed(library):
    """A queue that takes no more is an error for who publishes: neither side takes a message for sent that is not."""
    full = '{"max-length": 1, "overflow": "reject-publish"}'
    with virtual_host() as host:  # a policy is the host's, not the queue's
        assert host is not None
        rabbitmqctl("set_policy", "-p", host.name, "full", f"^({RETURNS_QUEUE}|{REPLY_QUEUE})$", full)
        with publishing(library, host.url) as publisher:
            answers = [publisher.publish_outbox(promise(publisher, REPLY_QUEUE, '"one"')) for _ in range(5)]
        with (
            closing(EventPublisher(host.url, "main-desk-1")) as station_publisher,
            pytest.raises(PublishRejectedError, match=RETURNS_QUEUE),
        ):
            for _ in range(5):  # a quorum queue counts a moment later
                station_publisher.publish([OutgoingEvent(str(uuid7()), PROCESS_SCAN, "{}")])

    assert answers[-1] == 0


@pytest.mark.long
@pytest.mark.thorough
def test_monitoring_that_cannot_be_told_keeps_no_worker_from_its_work(rabbitmq, deployment):
    """Its connections are lost without a word: its loop goes on turning, though it tells of itself every 2 s; TERM ends it."""
    heartbeat = deployment.heartbeat("returns")

    def beats():
        return heartbeat.stat().st_mtime if heartbeat.exists() else 0.0

    with Proxy(lambda: rabbitmq.port) as network:
        behind_proxy = replace(deployment, broker_url=rabbitmq.url_through(network.port))
        with behind_proxy.worker("returns") as process:
            wait_until(lambda: rabbitmq.queues("consumers").get(RETURNS_QUEUE, {}).get("consumers") == 1)
            first = beats()
            wait_until(lambda: beats() > first, "the heartbeat continues")
            # After two to three of these the server closes a connection and releases its exclusive queue.
            assert 30 in rabbitmq.heartbeats()
            network.drop()
            time.sleep(9)  # four heartbeat events for Flower
            last = beats()
            wait_until(lambda: beats() > last, "the heartbeat continues")
            assert stop(process) == 0


def test_what_is_lost_too_often_goes_to_the_dead_letters(publisher, rabbitmq):
    """After the delivery limit the broker itself puts a message aside, with its own words why."""
    queue = "printing.main"
    limit: Any = queue_arguments(queue)["x-delivery-limit"]
    with Connection(rabbitmq.url) as connection:
        channel: Any = connection.default_channel
        queue_declaration(DEAD_LETTER_QUEUE).bind(channel).queue_declare()
        publisher.publish_outbox(promise(publisher, queue, '"kills whoever takes it"'))

        for _ in range(limit + 1):
            message = wait_until(lambda: channel.basic_get(queue))
            channel.basic_reject(message.delivery_tag, requeue=True)
        letter = wait_until(lambda: channel.basic_get(DEAD_LETTER_QUEUE))
        left = channel.basic_get(queue)

    assert left is None
    assert letter.headers["x-death"][0]["reason"] == "delivery_limit"
    assert letter.headers["x-death"][0]["queue"] == queue


@pytest.mark.long
def test_users_as_they_are_printed(library, rabbitmq, deployment, tmp_path, monkeypatch):
    """A desk and a worker do a whole scan with their users; the desk hears no other one, and takes and deletes nothing."""
    prefix = f"{rabbitmq.name}-"
    monkeypatch.setenv("BOOKDROP_BROKER_URL", rabbitmq.url)
    printed = CliRunner().invoke(
        operations,
        ["acl", "rabbitmq", "--station", "main-desk-1", "--generate", str(tmp_path / "secrets"), "--prefix", prefix],
    )
    monkeypatch.delenv("BOOKDROP_BROKER_URL")
    lines = [line for line in printed.stdout.splitlines() if "operations" not in line and "flower" not in line]
    url = {
        name: (tmp_path / "secrets" / f"{prefix}{name}.url").read_text().strip()
        for name in ("worker", "station-main-desk-1")
    }
    _, [barcode] = library.request()
    try:
        subprocess.run(["sh", "-e"], input="\n".join(lines), text=True, check=True, capture_output=True, timeout=110)
        of_worker = replace(deployment, broker_url=url["worker"])
        of_station = replace(deployment, broker_url=url["station-main-desk-1"])
        with of_worker.worker("returns"), StationClient(of_station.station_settings()) as station:
            reply = station.wait(station.scan(barcode), 60)
        with Connection(rabbitmq.url) as connection:
            queue_declaration("reply.main-desk-2").bind(connection.default_channel).queue_declare()
        refused = []
        with Connection(url["station-main-desk-1"]) as connection:
            for command in (
                lambda channel: channel.basic_get("reply.main-desk-2"),
                lambda channel: channel.basic_get(RETURNS_QUEUE),
                lambda channel: channel.queue_delete(RETURNS_QUEUE),
                lambda channel: channel.queue_purge(RETURNS_QUEUE),
                lambda channel: channel.queue_declare("something-else"),
            ):
                with pytest.raises(amqp.AccessRefused):
                    command(connection.channel())
                refused.append(command)
    finally:
        for name in url:
            with suppress(RuntimeError):
                rabbitmqctl("delete_user", prefix + name)

    assert reply is not None
    assert reply.message == f"The item's destination is {LENDER}"
    assert len(refused) == 5


def test_what_flower_may_not_write():
    """Of all users only Flower may not publish to our queues; a station's expressions match its own names alone."""
    told = {user.name: user for user in permissions(["main-desk-1"])}

    assert not re.search(told["flower"].write, "amq.default")
    assert re.search(told["worker"].write, "amq.default")
    assert re.search(told["station-main-desk-1"].read, "reply.main-desk-1")
    assert not re.search(told["station-main-desk-1"].read, "reply.main-desk-11")
    assert not re.search(told["station-main-desk-1"].read, "replyxmain-desk-1")
