# SPDX-License-Identifier: Apache-2.0
"""Atomic receive on Redis under faults: workers and servers that are suspended, killed, restarted, full or disconnected."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import redis
from sqlalchemy import func, select

from schemas.models import RequestEvent
from schemas.topology import DEAD_LETTER_QUEUE, RETURNS_QUEUE
from tests.network import free_port, tls_proxy
from tests.polling import wait_until
from tests.processes import kill_group, stop
from tests.raw_station import RawStation
from tests.redis_consumer import MALFORMED, RedisConsumer
from tests.requirements import skip_or_fail
from tests.valkey import sentinel_group

pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.databases("sqlite")]


def count_returns(library):
    with library.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(RequestEvent)).scalar_one()


def is_settled(client):
    """True when no message waits and none is held."""
    return not client.llen(RETURNS_QUEUE) and not client.hlen("unacked") and not client.zcard("unacked_index")


def is_blocked_in(client, command):
    """True while a connection of a worker is blocked in `command`."""
    return any(each["cmd"] == command and "b" in each["flags"] for each in client.client_list())


def test_suspended_idle_worker_takes_no_message(deployment, raw_station, library, valkey):
    """Three events are published to a suspended idle worker, which is then killed. All three stay in the queue for the next worker."""
    process = deployment.start_worker("returns")
    try:
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        wait_until(lambda: is_blocked_in(valkey, "blmove"))
        os.killpg(process.pid, signal.SIGSTOP)
        sent = [raw_station.send(library.scan(library.request()[1][0])) for _ in range(3)]
        time.sleep(1.5)  # longer than the peek lasts
    finally:
        kill_group(process)

    assert valkey.llen(RETURNS_QUEUE) == 3
    with deployment.worker("returns"):
        assert {reply["outcome"] for reply in raw_station.replies_to(*sent)} == {"returned"}


def test_worker_killed_with_a_batch_loses_no_event(deployment, raw_station, library, sqlite_locked, valkey):
    """SIGKILL with twenty events, without a retry by the station: after the visibility timeout another worker processes each once."""
    process = deployment.start_worker("returns", BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS="30")
    try:
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        barcodes = [library.request()[1][0] for _ in range(20)]
        with sqlite_locked():
            sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes]
            wait_until(lambda: valkey.hlen("unacked") == 20, "the worker holds all events")
            kill_group(process)
    finally:
        stop(process)
    with deployment.worker("returns", BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS="30"):
        replies = raw_station.replies_to(*sent)
        wait_until(lambda: is_settled(valkey))

    assert {reply["outcome"] for reply in replies} == {"returned"}
    assert count_returns(library) == 20


def test_kombu_and_atomic_workers_share_a_queue(deployment, raw_station, library, sqlite_locked, valkey, tmp_path):
    """Both transports consume one queue. Each scan gets a reply, each item is returned once, and no message is left."""
    kombu_folder = tmp_path / "kombu"
    kombu_folder.mkdir()
    with (
        deployment.worker("returns"),
        replace(deployment, folder=kombu_folder).worker("returns", BOOKDROP_REDIS_TRANSPORT="kombu"),
    ):
        wait_until(lambda: is_blocked_in(valkey, "blmove") and is_blocked_in(valkey, "brpop"))
        barcodes = [library.request()[1][0] for _ in range(80)]
        sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes]
        replies = raw_station.replies_to(*sent)
        wait_until(lambda: is_settled(valkey))

    assert [reply["outcome"] for reply in replies] == ["returned"] * 80
    assert count_returns(library) == 80


def test_acknowledgement_does_not_wait_for_another_message(deployment, raw_station, library, valkey):
    """The worker acknowledges an event although no later message arrives that could carry the acknowledgement."""
    with deployment.worker("returns"):
        for _ in range(3):
            raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))
            wait_until(lambda: is_settled(valkey))


def test_remote_control_returns_statistics(deployment, raw_station, library, valkey, celery_app):
    """Remote control over the atomic transport returns statistics, and TERM ends the worker and leaves no message."""
    process = deployment.start_worker("returns")
    try:
        raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))
        wait_until(lambda: is_blocked_in(valkey, "blmove"))
        [statistics] = (celery_app.control.inspect(timeout=10, limit=1).stats() or {}).values()
    finally:
        code = stop(process)

    assert statistics["broker"]["transport"] == "redis"
    assert code == 0
    assert is_settled(valkey)


def test_worker_survives_malformed_messages(deployment, raw_station, library, valkey):
    """The worker quarantines and logs malformed messages of every kind, and then processes a scan."""
    with deployment.worker("returns") as process:
        for raw in MALFORMED.values():
            valkey.lpush(RETURNS_QUEUE, raw)
        [reply] = raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))
        assert process.poll() is None

    assert reply["outcome"] == "returned"
    assert valkey.llen(DEAD_LETTER_QUEUE) == len(MALFORMED)
    assert deployment.log("returns").count("message_quarantined") == len(MALFORMED)


def test_restarted_server_keeps_its_backlog(start_valkey, deployment, library, sqlite_locked):
    """The server is killed with waiting and unacknowledged messages, and restarted. The worker processes each once."""
    server = start_valkey("--appendonly", "yes", "--appendfsync", "always")
    on_server = replace(deployment, broker_url=server.url)
    with on_server.worker("returns", BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS="30") as process:
        raw_station = RawStation(server.url)
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        barcodes = [library.request()[1][0] for _ in range(100)]
        with sqlite_locked():
            for barcode in barcodes:
                raw_station.send(library.scan(barcode))
            wait_until(lambda: server.client.hlen("unacked") > 0)
            with suppress(OSError, redis.RedisError):
                raw_station.close()
            server.kill()
            time.sleep(1)
            server.start()
        wait_until(lambda: count_returns(library) == 100)
        wait_until(lambda: is_settled(server.client), ignore=(redis.ConnectionError,))

        assert process.poll() is None


def test_killed_connections_under_load_lose_no_scan(deployment, library, valkey):
    """Every connection to the server is killed five times during 150 scans. The worker processes each once."""
    barcodes = [library.request()[1][0] for _ in range(150)]
    with deployment.worker("returns", BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS="30") as process:
        raw_station = RawStation(deployment.broker_url)
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        for barcode in barcodes:
            raw_station.send(library.scan(barcode))
        raw_station.close()
        for _ in range(5):
            valkey.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(0.1)
        wait_until(lambda: count_returns(library) == 150)
        wait_until(lambda: is_settled(valkey), ignore=(redis.ConnectionError,))

        assert process.poll() is None


def test_worker_logs_and_survives_a_full_server(deployment, raw_station, library, valkey):
    """With the server's memory full the worker logs it once, keeps running, and continues when memory is free."""
    log = deployment.folder / "returns.log"
    with deployment.worker("returns") as process:
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        valkey.config_set("maxmemory", 1)
        try:
            wait_until(lambda: "broker_out_of_memory" in log.read_text())
            time.sleep(3)
            assert log.read_text().count("broker_out_of_memory") == 1
        finally:
            valkey.config_set("maxmemory", 0)
        [reply] = raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))

        assert reply["outcome"] == "returned"
        assert process.poll() is None


def test_atomic_receive_over_tls(valkey, valkey_socket, short_folder):
    """`rediss://` with a verified certificate: messages are received, acknowledged, and end a blocking peek."""
    with tls_proxy(valkey_socket, short_folder) as (port, certificate):
        consumer = RedisConsumer(
            f"rediss://localhost:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={certificate}", prefetch=2
        )
        consumer.idle()
        consumer.send("a", "b", "c")
        assert consumer.take(2) == ["a", "b"]
        consumer.ack()
        assert consumer.take(1) == ["c"]
        consumer.ack()
        consumer.close()

    assert is_settled(valkey)


def test_sentinel_failover_redelivers_held_messages(start_valkey, short_folder):
    """Behind Sentinel: messages that the killed master held are delivered by the new one, its former replica."""
    with sentinel_group(start_valkey, short_folder) as group:
        master, replica = group.master.client, group.replica.client
        url, options = f"sentinel://127.0.0.1:{group.port}", {"prefetch": 2, "master_name": "books"}
        consumer = RedisConsumer(url, **options)
        consumer.idle()
        consumer.send("a", "b", "c", "d")
        assert consumer.take(2) == ["a", "b"]
        wait_until(lambda: master.wait(1, 1000) == 1, "the replica has everything")
        group.master.kill()
        wait_until(lambda: replica.info("replication")["role"] == "master", "Sentinel fails over")
        consumer.die()
        successor = RedisConsumer(url, **options)
        assert successor.take(2) == ["c", "d"]
        successor.ack()
        tags: Any = replica.zrange("unacked_index", 0, -1)
        replica.zadd("unacked_index", dict.fromkeys(tags, 1))
        successor.channel.qos.restore_visible(num=10, interval=1)
        assert sorted(successor.take(2)) == ["a", "b"]
        successor.ack()
        successor.close()
        assert is_settled(replica)


def test_master_demoted_to_replica_ends_the_connection(start_valkey):
    """Demotion ends the peek as a lost connection, after which the program reconnects."""
    server = start_valkey(port=free_port())
    other = start_valkey(port=free_port())
    consumer = RedisConsumer(server.url)
    consumer.idle()
    server.client.replicaof("127.0.0.1", other.port)
    with pytest.raises(consumer.connection.connection_errors):
        consumer.take(1)
    consumer.die()


def test_redis_itself_behaves_as_valkey(short_folder):
    """The script and the peek on a Redis server, where one is installed beside Valkey."""
    binary = shutil.which("redis-server")
    if (
        binary is None
        or "Redis" not in subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    ):
        skip_or_fail("redis-server")
    path = short_folder / "r.sock"
    process = subprocess.Popen(
        [binary, "--port", "0", "--unixsocket", str(path), "--save", ""], stdout=subprocess.DEVNULL
    )
    client = redis.Redis(unix_socket_path=str(path))
    try:
        wait_until(client.ping, "Redis responds", ignore=(redis.ConnectionError,))
        consumer = RedisConsumer(f"redis+socket://{path}", prefetch=3)
        consumer.idle()
        client.lpush(RETURNS_QUEUE, b"malformed")
        consumer.send(*range(5))
        assert consumer.take(3) == [0, 1, 2]
        consumer.ack()
        client.config_set("maxmemory", 1)
        assert consumer.take(2) == [3, 4]
        consumer.ack()
        client.config_set("maxmemory", 0)
        consumer.close()
        assert is_settled(client)
        assert client.llen(DEAD_LETTER_QUEUE) == 1
    finally:
        process.kill()
        process.wait()
        client.close()


CONSUMER = """
import sys
from tests.redis_consumer import RedisConsumer
url, done = sys.argv[1:]
consumer = RedisConsumer(url, prefetch=40, visibility_timeout=1, delivery_limit=0)
consumer.channel.qos.restore_visible(num=None, interval=1)
with open(done, "a", buffering=1) as file:
    while True:
        consumer.drain(0.2)
        for message in consumer.messages:
            file.write(f"{message.payload}\\n")
            message.ack()
        consumer.messages.clear()
"""


def test_consumers_killed_at_random_lose_no_message(broker_url, valkey, tmp_path):
    """Consumers are killed at random moments while messages arrive. In the end each message was delivered."""
    done = tmp_path / "done"
    done.touch()
    sender = RedisConsumer(broker_url, queues=["other"])
    total = 0
    for _ in range(12):
        consumers = [
            subprocess.Popen([sys.executable, "-c", CONSUMER, broker_url, done], start_new_session=True)
            for _ in range(2)
        ]
        before = len(done.read_text().splitlines())
        sender.send(*range(total, total + 50))
        wait_until(lambda: len(done.read_text().splitlines()) > before)  # noqa: B023 - called at once
        sender.send(*range(total + 50, total + 200))
        total += 200
        for consumer in consumers:
            kill_group(consumer)
    last = subprocess.Popen([sys.executable, "-c", CONSUMER, broker_url, done], start_new_session=True)
    try:
        wait_until(lambda: is_settled(valkey))
    finally:
        kill_group(last)
        sender.close()

    assert {int(line) for line in done.read_text().splitlines() if line} == set(range(total))
