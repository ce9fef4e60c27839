# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ: queues with the arguments of the contract, and confirmed publishing."""

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
    """A worker's publisher, with a unit of work for its outbox."""
    settings = WorkerSettings(broker_url=SecretStr(url))
    sessions, published_rows = sessionmaker(library.engine), PublishedRows()
    made: Any = BrokerPublisher(lambda: connect(settings, confirm_each=False), sessions, published_rows, "a test")
    made.unit_of_work = lambda: UnitOfWork(sessions, utc_now(), published_rows)
    yield made
    made.close()


@pytest.fixture
def publisher(library, rabbitmq):
    with publishing(library, rabbitmq.url) as publisher:
        yield publisher


def enqueue(publisher, queue, body):
    """Commit a message to the outbox; return it."""
    with publisher.unit_of_work() as uow:
        uow.enqueue(queue, body)
    return uow.pending_messages


def outbox_rows(library):
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
def test_scan_on_rabbitmq_gets_its_reply(library, rabbitmq, deployment):
    """The URL alone selects RabbitMQ: the scan gets its reply, and all queues have the arguments of the contract."""
    _, [barcode] = library.request()

    with deployment.worker("returns"):
        with StationClient(deployment.station_settings()) as station:
            reply = station.wait(station.scan(barcode), 60)
        listed = rabbitmq.queues("type", "arguments")

    assert reply is not None
    assert reply.message == f"The item's destination is {LENDER}"
    assert {RETURNS_QUEUE, DEAD_LETTER_QUEUE, REPLY_QUEUE, "printing.main"} <= set(listed)
    assert {name: listed[name]["type"] for name in (RETURNS_QUEUE, DEAD_LETTER_QUEUE, "printing.main")} == {
        RETURNS_QUEUE: "quorum", DEAD_LETTER_QUEUE: "quorum", "printing.main": "quorum",
    }  # fmt: skip
    for name in (RETURNS_QUEUE, DEAD_LETTER_QUEUE, REPLY_QUEUE, "printing.main"):
        arguments = {argument: value for argument, _, value in listed[name]["arguments"]}
        assert arguments == queue_arguments(name)


@pytest.mark.parametrize("first", ["station", "worker"])
def test_station_and_worker_declare_the_reply_queue_equally(publisher, rabbitmq, first):
    """In either order both declare it without an error; other arguments would be rejected."""

    def station():
        with closing(EventPublisher(rabbitmq.url, "main-desk-1")) as station_publisher:
            station_publisher.publish([OutgoingEvent(str(uuid7()), PROCESS_SCAN, "{}")])

    def worker():
        assert publisher.publish_outbox(enqueue(publisher, REPLY_QUEUE, '"a reply"')) == 1

    for side in (station, worker) if first == "station" else (worker, station):
        side()

    with Connection(rabbitmq.url) as connection, pytest.raises(amqp.PreconditionFailed):
        channel: Any = connection.default_channel
        channel.queue_declare(REPLY_QUEUE, durable=True, auto_delete=False)


def test_message_to_a_deleted_queue_stays_in_the_outbox(publisher, library, rabbitmq):
    """The broker returns it as unroutable: the message stays, and the next publishing declares the queue again."""
    publisher.publish_outbox(enqueue(publisher, REPLY_QUEUE, '"one"'))
    rabbitmq.delete(REPLY_QUEUE)

    gone = enqueue(publisher, REPLY_QUEUE, '"two"')
    published = publisher.publish_outbox(gone)
    kept = outbox_rows(library)
    again = publisher.publish_outbox(gone)
    publisher.flush()

    assert (published, kept, again, outbox_rows(library)) == (0, 1, 1, 0)
    assert bodies(rabbitmq.url, REPLY_QUEUE) == ['"two"']


def test_only_unroutable_messages_of_a_batch_stay_in_the_outbox(publisher, library, rabbitmq):
    """One round trip for all: each message is confirmed, or stays in the outbox, independently of the others."""
    there = [f"reply.main-desk-{n}" for n in (1, 2)]
    for queue in there:
        publisher.publish_outbox(enqueue(publisher, queue, '"declares it"'))
    rabbitmq.delete(there[1])
    pending_messages = [entry for n in range(40) for entry in enqueue(publisher, there[n % 2], f'"{n}"')]
    publisher.flush()

    published = publisher.publish_outbox(pending_messages)
    publisher.flush()
    left = outbox_rows(library)
    again = publisher.publish_outbox(pending_messages[1::2])

    assert (published, left, again) == (20, 20, 20)
    assert bodies(rabbitmq.url, there[0]) == ['"declares it"', *(f'"{n}"' for n in range(0, 40, 2))]
    assert bodies(rabbitmq.url, there[1]) == [f'"{n}"' for n in range(1, 40, 2)]


def test_confirms_are_rejected_on_a_self_confirming_connection(rabbitmq):
    """A connection that waits for each confirm would consume them, and each wait would last 5 s: it is rejected."""
    self_confirming = connect(WorkerSettings(broker_url=SecretStr(rabbitmq.url)))

    with self_confirming, pytest.raises(ValueError, match="confirm_publish"):
        enable_confirms(self_confirming.default_channel)


def test_station_publishes_again_to_a_deleted_queue(rabbitmq):
    """The station's connection notices it, reconnects, and declares the queue: the scan is in it."""
    with closing(EventPublisher(rabbitmq.url, "main-desk-1")) as station_publisher:
        station_publisher.publish([OutgoingEvent(str(uuid7()), PROCESS_SCAN, '{"n":1}')])
        rabbitmq.delete(RETURNS_QUEUE)

        station_publisher.publish([OutgoingEvent(str(uuid7()), PROCESS_SCAN, '{"n":2}')])

    [body] = bodies(rabbitmq.url, RETURNS_QUEUE)
    assert json.loads(body)[0] == [{"n": 2}]


@pytest.mark.usefixtures("rabbitmq")
def test_rejected_publish_is_an_error_on_both_sides(library):
    """A full queue rejects the message: neither side counts a message as sent that is not."""
    full = '{"max-length": 1, "overflow": "reject-publish"}'
    with virtual_host() as host:  # a policy is the host's, not the queue's
        assert host is not None
        rabbitmqctl("set_policy", "-p", host.name, "full", f"^({RETURNS_QUEUE}|{REPLY_QUEUE})$", full)
        with publishing(library, host.url) as publisher:
            published = [publisher.publish_outbox(enqueue(publisher, REPLY_QUEUE, '"one"')) for _ in range(5)]
        with (
            closing(EventPublisher(host.url, "main-desk-1")) as station_publisher,
            pytest.raises(PublishRejectedError, match=RETURNS_QUEUE),
        ):
            for _ in range(5):  # a quorum queue counts a moment later
                station_publisher.publish([OutgoingEvent(str(uuid7()), PROCESS_SCAN, "{}")])

    assert published[-1] == 0


@pytest.mark.long
@pytest.mark.thorough
def test_dropped_connections_do_not_block_the_worker_loop(rabbitmq, deployment):
    """With dropped connections the loop continues, although the worker sends events every 2 s; TERM ends it."""
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


def test_message_beyond_its_delivery_limit_is_dead_lettered(publisher, rabbitmq):
    """After the delivery limit the broker dead-letters a message, with the reason in its headers."""
    queue = "printing.main"
    limit: Any = queue_arguments(queue)["x-delivery-limit"]
    with Connection(rabbitmq.url) as connection:
        channel: Any = connection.default_channel
        queue_declaration(DEAD_LETTER_QUEUE).bind(channel).queue_declare()
        publisher.publish_outbox(enqueue(publisher, queue, '"kills its worker"'))

        for _ in range(limit + 1):
            message = wait_until(lambda: channel.basic_get(queue))
            channel.basic_reject(message.delivery_tag, requeue=True)
        letter = wait_until(lambda: channel.basic_get(DEAD_LETTER_QUEUE))
        left = channel.basic_get(queue)

    assert left is None
    assert letter.headers["x-death"][0]["reason"] == "delivery_limit"
    assert letter.headers["x-death"][0]["queue"] == queue


@pytest.mark.long
def test_printed_users_complete_a_scan_and_are_denied_more(library, rabbitmq, deployment, tmp_path, monkeypatch):
    """Station and worker complete a scan with their users; the station reads no other reply queue, and deletes no queue."""
    prefix = f"{rabbitmq.name}-"
    monkeypatch.setenv("BOOKDROP_BROKER_URL", rabbitmq.url)
    printed = CliRunner().invoke(
        operations,
        ["acl", "rabbitmq", "--station", "main-desk-1", "--generate", str(tmp_path / "secrets"), "--prefix", prefix],
    )
    monkeypatch.delenv("BOOKDROP_BROKER_URL")
    lines = [line for line in printed.stdout.splitlines() if f"{prefix}worker" in line or f"{prefix}station" in line]
    url = {
        name: (tmp_path / "secrets" / f"{prefix}{name}.url").read_text().strip()
        for name in ("worker", "station-main-desk-1")
    }
    _, [barcode] = library.request()
    try:
        for _ in range(2):  # a second run keeps the users
            subprocess.run(
                ["sh", "-e"], input="\n".join(lines), text=True, check=True, capture_output=True, timeout=300
            )
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


def test_stations_flower_and_metrics_may_not_write_to_the_anonymous_exchange():
    """Only workers and operations may publish to the queues; a station's expressions match its own names only."""
    listed = {user.name: user for user in permissions(["main-desk-1"])}

    for user in ("flower", "metrics", "station-main-desk-1"):
        assert not re.search(listed[user].write, "amq.default")
    assert re.search(listed["worker"].write, "amq.default")
    assert re.search(listed["station-main-desk-1"].read, "reply.main-desk-1")
    assert not re.search(listed["station-main-desk-1"].read, "reply.main-desk-11")
    assert not re.search(listed["station-main-desk-1"].read, "replyxmain-desk-1")
