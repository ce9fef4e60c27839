# SPDX-License-Identifier: Apache-2.0
"""`bookdrop acl redis`, loaded into Redis 7.0 and Valkey: the permissions of each user.

`tests/attack/test_redis_station_user.py` tests what the servers refuse to a station.
"""

import hashlib
import json
import re
import urllib.request
from contextlib import closing, suppress
from functools import partial
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from sqlalchemy import select

from schemas.models import OutboxEntry
from schemas.print_jobs import PrintState as State
from schemas.topology import PRINT_SLIP, PROCESS_SCAN, RETURNS_QUEUE
from stations.client import StationClient
from tasks.events.processing import process_in
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tests.flower import FlowerClient, FlowerProcess, published_print_job, running, set_print_job
from tests.library import LENDER
from tests.network import free_port
from tests.polling import wait_until
from tests.processes import Deployment
from tests.raw_station import RawStation
from tests.secured_redis import SERVERS, secured_redis
from tests.task_context import POLICY
from workers.cli import main

pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.databases("sqlite")]


@pytest.fixture(params=SERVERS)
def secured_server(request, short_folder):
    """A server of each kind for one test."""
    with secured_redis(request.param, short_folder) as server:
        yield server


@pytest.fixture(scope="module", params=SERVERS)
def shared_server(request, tmp_path_factory):
    """One server of each kind for all denied commands."""
    with secured_redis(request.param, tmp_path_factory.mktemp("secured")) as server:
        yield server


@pytest.fixture
def user_deployment(secured_server, database_url, tmp_path):
    """A deployment on the server, with the user `worker` or another one."""
    return lambda user: Deployment(secured_server.urls[user], database_url, tmp_path)


def test_station_and_workers_complete_a_scan(secured_server, user_deployment, library):
    """A scan from event to slip notice, each worker with the user of its role: the server denies no command."""
    _, [barcode] = library.request()
    settings = user_deployment("station-main-desk-1").station_settings()
    slips: list[Any] = []

    with (
        user_deployment("returns").worker("returns"),
        user_deployment("printing").worker("printing", "--branch", "main"),
        user_deployment("housekeeping").worker("housekeeping"),
        StationClient(settings, on_slip=slips.append) as station,
    ):
        reply = station.wait(station.scan(barcode), 60)
        wait_until(lambda: slips, "the slip notice arrives")
        metrics = [user_deployment(user).bookdrop("metrics", "--once").stdout for user in ("metrics", "operations")]

    for printed in metrics:
        assert 'bookdrop_source_up{source="broker"} 1.0' in printed
        assert 'bookdrop_workers{role="printing"} 1.0' in printed
    assert reply is not None
    assert reply.message == f"The item's destination is {LENDER}"
    assert secured_server.refused() == []


def test_flower_and_operations_work(secured_server, user_deployment, library):
    """Flower lists the scan and the worker, and `doctor` and remote control work: the server denies no other command.

    `doctor` asks for the rights of its own user, which no user of a role may read: they contain the digest of its password.
    """
    workers, operations = user_deployment("worker"), user_deployment("operations")
    port = free_port()

    def api(path):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=300) as response:
            return json.load(response)
        return {}

    with (
        user_deployment("flower").celery(
            "flower", "--address=127.0.0.1", f"--port={port}", role="flower", FLOWER_UNAUTHENTICATED_API="true"
        ),
        workers.worker("returns"),
        closing(RawStation(user_deployment("administrator").broker_url)) as raw_station,
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
    assert {command for _, _, command in secured_server.refused()} <= {"acl|getuser"}


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("worker", "FLUSHALL"),
        ("worker", "KEYS *"),
        ("worker", "CONFIG SET maxmemory 1"),
        ("worker", "ACL LIST"),
        ("worker", "SHUTDOWN"),
        ("worker", "MONITOR"),
        ("worker", "GET another-key"),
        ("worker", "PUBLISH /0.celery.pidbox x"),
        ("worker", "BRPOP reply.main-desk-1 0.1"),
        ("returns", "RPOP housekeeping"),
        ("returns", "RPOP print-actions"),
        ("returns", "RPOP reply.main-desk-1"),
        ("returns", "PUBLISH /0.celery.pidbox x"),
        ("printing", "RPOP returns"),
        ("printing", "LRANGE returns 0 -1"),
        ("printing", "DEL returns"),
        ("printing", "RPOP reply.main-desk-1"),
        ("printing", "PUBLISH /0.celery.pidbox x"),
        ("housekeeping", "RPOP returns"),
        ("housekeeping", "RPOP reply.main-desk-1"),
        ("housekeeping", "PUBLISH /0.celery.pidbox x"),
        ("metrics", "LPUSH returns x"),
        ("metrics", "RPOP returns"),
        ("metrics", "HGETALL unacked"),
        ("metrics", "ZREM unacked_index x"),
        ("metrics", "PUBLISH /0.celery.pidbox x"),
        ("metrics", "PUBLISH /0.celeryev/worker.heartbeat x"),
        ("metrics", "DEL returns"),
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


def test_flowers_user_acts_on_slips_and_refuses_to_requeue(user_deployment, library, context):
    """Retry of a slip is left to the outbox. Retry of a quarantined message names the command, and keeps it; drop works."""
    slip = published_print_job(library, context)
    set_print_job(library, slip, state=State.HELD)
    with context.unit_of_work() as uow:
        scan = library.scan("31000000017", station="west-desk-1")
        process_in(uow, [Received(scan, "reply.main-desk-1", PROCESS_SCAN)], RETURN_HANDLER, POLICY)

    flower = FlowerProcess(user_deployment("flower"), FLOWER_BASIC_AUTH="ann:long-enough")
    with running(flower):
        ann = FlowerClient(flower.url, "ann:long-enough")
        retried = ann.post(f"/prints/{slip}", do="retry", reason="paper in")
        [version] = re.findall(r'name="expected" value="([^"]+)"', ann.get("/quarantine/decide", do="retry")[1])
        refused = ann.post("/quarantine/decide", do="retry", why="registered", expected=version)
        dropped = ann.post("/quarantine/decide", do="drop", why="a test", expected=version)

    with library.engine.connect() as connection:
        waiting = connection.scalars(select(OutboxEntry.task)).all()
    assert (retried[0], waiting.count(PRINT_SLIP)) == (
        302,
        2,
    )  # of the Return, which this test does not publish, and Retry
    assert (refused[0], "NoPermissionError" in refused[1], "quarantine retry 1" in refused[1]) == (409, True, True)
    assert dropped[0] == 302


def test_default_user_is_denied(shared_server):
    """The server's default user is off."""
    with redis.Redis(port=shared_server.port) as anonymous, pytest.raises(redis.RedisError):
        anonymous.ping()


def test_file_for_server_version_7_2_leaves_no_refusal_in_acl_log(short_folder):
    """`--server-version 7.2` permits redis-py's `CLIENT SETINFO`, which the default file refuses on Valkey."""
    refusals = []
    for options in ([], ["--server-version", "7.2"]):
        place = short_folder / str(len(options))
        place.mkdir()
        with secured_redis("valkey", place, *options) as server:
            for name in server.urls:
                with server.client(name) as client:
                    client.ping()
            refusals.append({entry["object"] for entry in server.administrator.acl_log()})

    assert refusals == [{"client|setinfo"}, set()]


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
