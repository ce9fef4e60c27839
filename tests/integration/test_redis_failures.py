# SPDX-License-Identifier: Apache-2.0
"""Redis failures and deployments: full memory, unread reply queues, unroutable messages, Sentinel, TLS."""

import json
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from kombu import Exchange, Producer
from kombu.exceptions import OperationalError
from kombu.transport.virtual.base import UndeliverableWarning
from pydantic import SecretStr
from sqlalchemy.orm import sessionmaker
from uuid6 import uuid7

from schemas.topology import (
    DEAD_LETTER_QUEUE,
    PROCESS_SCAN,
    REPLY_QUEUE_EXPIRES_SECONDS,
    RETURNS_QUEUE,
    reply_queue,
)
from stations.client import StationClient
from stations.transport import EventPublisher, OutgoingEvent, ReplyConsumer, connect
from tasks.ports import PendingMessage
from tasks.unit_of_work import PublishedRows
from tests.library import LENDER
from tests.network import tls_proxy
from tests.polling import wait_until
from tests.valkey import sentinel_group
from workers import bootstrap, publisher
from workers.runtime.queues import queue_declaration
from workers.settings import WorkerSettings

pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.databases("sqlite")]

CODE = "main-desk-1"


def publish(broker_url, engine, *bodies):
    """Publish replies to the station, as a worker does; return the number of published ones."""
    settings = WorkerSettings(broker_url=SecretStr(broker_url))
    made = publisher.BrokerPublisher(
        lambda: bootstrap.connect(settings, confirm_each=False), sessionmaker(engine), PublishedRows(), "a test"
    )
    published = made.publish_outbox([PendingMessage(uuid7(), reply_queue(CODE), None, body, None) for body in bodies])
    made.close()
    return published


def test_workers_and_station_survive_a_full_server(library, deployment, valkey):
    """Workers of every role and a station survive `maxmemory`. The item scanned meanwhile is returned and its slip printed."""
    _, [barcode] = library.request()
    slips: list[Any] = []

    with (
        deployment.worker("returns") as returns,
        deployment.worker("printing", "--branch", "main") as printing,
        deployment.worker("housekeeping") as housekeeping,
        StationClient(deployment.station_settings(retry_interval_seconds=1), on_slip=slips.append) as station,
    ):
        station.wait(station.scan("warm-up"), 60)
        wait_until(lambda: deployment.heartbeat("housekeeping").exists() and deployment.heartbeat("printing").exists())
        valkey.config_set("maxmemory", 1)
        try:
            event_id = station.scan(barcode)
            wait_until(lambda: not station.is_connected)
            wait_until(lambda: "maxmemory" in deployment.log("housekeeping"))
        finally:
            valkey.config_set("maxmemory", 0)
        reply = station.wait(event_id, 60)
        wait_until(lambda: slips)
        exit_codes = [worker.poll() for worker in (returns, printing, housekeeping)]

    assert reply is not None
    assert reply.message == f"The item's destination is {LENDER}"
    assert exit_codes == [None, None, None]


def test_unread_reply_queue_expires(broker_url, valkey, engine, monkeypatch):
    """Each reply extends the expiry of its queue to a week. The server deletes an expired queue."""
    published = publish(broker_url, engine, '"one"', '"two"')
    left = valkey.pttl(reply_queue(CODE))
    monkeypatch.setattr(publisher, "queue_arguments", lambda _queue: {"x-expires": 100})
    publish(broker_url, engine, '"three"')

    assert published == 2
    assert 0 < left <= REPLY_QUEUE_EXPIRES_SECONDS * 1000
    wait_until(lambda: not valkey.exists(reply_queue(CODE)))


def test_station_restores_no_message_that_a_worker_holds(broker_url, valkey):
    """A station that consumes does not restore a message that a worker received an hour ago."""
    message = {"body": "", "headers": {}, "properties": {"delivery_tag": "held", "delivery_info": {}}}
    valkey.hset("unacked", "held", json.dumps([message, "", "somewhere"]))
    valkey.zadd("unacked_index", {"held": 1})
    consumer = ReplyConsumer(broker_url, CODE, lambda _: None)

    for _ in range(12):  # kombu would sweep on the 1st and the 11th idle poll
        consumer.receive(0.3, gather=False)
    consumer.close()

    assert valkey.zrange("unacked_index", 0, -1) == [b"held"]
    assert not valkey.exists("somewhere")


def test_unroutable_message_is_dead_lettered(broker_url, valkey):
    """A message to an exchange without bindings is stored as a dead letter."""
    settings = WorkerSettings(broker_url=SecretStr(broker_url))
    with bootstrap.connect(settings) as connection:
        channel = connection.default_channel
        queue_declaration(DEAD_LETTER_QUEUE).bind(channel).queue_declare()
        exchange = Exchange("nowhere", type="direct")
        exchange(channel).declare()

        with pytest.warns(UndeliverableWarning):
            Producer(channel).publish("lost?", exchange=exchange, routing_key="unbound")

    assert valkey.llen(DEAD_LETTER_QUEUE) == 1


def test_scan_over_tls(library, deployment, valkey_socket, short_folder):
    """`rediss://` with a private certificate authority for station and worker. Without the authority the certificate is rejected."""
    _, [barcode] = library.request()
    with tls_proxy(valkey_socket, short_folder) as (port, certificate):
        url = f"rediss://localhost:{port}/0"
        trusted = f"{url}?ssl_ca_certs={certificate}"
        over_tls = replace(deployment, broker_url=trusted)
        with over_tls.worker("returns"), StationClient(over_tls.station_settings()) as station:
            reply = station.wait(station.scan(barcode), 60)
        with connect(url) as connection, pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
            channel: Any = connection.default_channel
            channel.queue_declare("x")

    assert reply is not None
    assert reply.message == f"The item's destination is {LENDER}"


def test_rabbitmq_over_tls(rabbitmq, short_folder):
    """`amqps://` with the same options: a worker receives what a station publishes. Without the authority it is rejected."""
    with tls_proxy(5672, short_folder) as (port, certificate):
        url = f"amqps://guest:guest@localhost:{port}/{rabbitmq.name}"
        trusted = f"{url}?ssl_ca_certs={certificate}"
        with closing(EventPublisher(trusted, CODE)) as publisher_of_station:
            publisher_of_station.publish([OutgoingEvent(str(uuid7()), PROCESS_SCAN, "{}")])
        with bootstrap.connect(WorkerSettings(broker_url=SecretStr(trusted))) as connection:
            channel: Any = connection.default_channel
            message = channel.basic_get(RETURNS_QUEUE)
        with connect(url) as connection, pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            connection.connect()

    assert message is not None


def test_station_and_worker_follow_sentinel(library, deployment, start_valkey, short_folder):
    """One Sentinel of the URL is unavailable. When the master is killed, station and worker continue on its successor."""
    with sentinel_group(start_valkey, short_folder) as group:
        url = f"sentinel://127.0.0.1:1,127.0.0.1:{group.port}/0?master_name=books"
        behind_sentinel = replace(deployment, broker_url=url)
        settings = behind_sentinel.station_settings(retry_interval_seconds=1)
        with behind_sentinel.worker("returns"), StationClient(settings) as station:
            first = station.wait(station.scan(library.request()[1][0]), 60)
            group.master.kill()
            second = station.wait(station.scan(library.request()[1][0]), 60)

        assert [reply and reply.outcome for reply in (first, second)] == ["returned", "returned"]
        assert group.replica.client.info("replication")["role"] == "master"
