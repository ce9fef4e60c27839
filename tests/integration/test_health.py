# SPDX-License-Identifier: Apache-2.0
"""A worker that hangs is noticed, its process as well; and what a supervisor and the doctor are told."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import Any

import pytest
from kombu import Connection
from sqlalchemy import update

from schemas.database import open_engine
from schemas.models import Printer
from tests.library import Library
from tests.wire import Wire, start_worker, stop, worker
from workers.app import app
from workers.doctor import workers
from workers.embedded.data_dir import DataDirectory, ProcessState
from workers.embedded.supervisor import started_at

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def library(sqlite_url, tmp_path):
    """A small library on SQLite."""
    engine = open_engine(sqlite_url)
    yield Library(engine, tmp_path / "spool").open()
    engine.dispose()


@pytest.fixture
def bookdrop(tmp_path):
    """Run a `bookdrop` command; gives its exit code and its JSON."""

    def run(*arguments, broker_url=NOWHERE, database_url="sqlite:////nowhere/bookdrop.db", **environment):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")}
        settings = {
            "BOOKDROP_BROKER_URL": broker_url,
            "BOOKDROP_DATABASE_URL": database_url,
            "BOOKDROP_HEARTBEAT_FILE": str(tmp_path / "returns.heartbeat"),
        }
        done = subprocess.run(
            [sys.executable, "-m", "workers.cli", *arguments, "--json"],
            env={**clean, **settings, **environment}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout)

    return run


@contextmanager
def stopped(pid):
    """The process `pid` stands still for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def until(condition, patience=30.0):
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)
    return found


def children(pid):
    """The processes of a worker's pool."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return {int(line) for line in listed.stdout.split()}


@pytest.mark.long
@pytest.mark.thorough
def test_a_worker_that_hangs_is_not_live_and_one_that_goes_on_is(bookdrop, broker_url, sqlite_url, library, tmp_path):
    """A worker that stands still beats no more: its live probe fails and the doctor names its role, until it goes on."""
    beat = tmp_path / "returns.heartbeat"
    parts = {"broker_url": broker_url, "database_url": sqlite_url, "folder": tmp_path}
    process = start_worker("returns", **parts)
    try:
        until(beat.exists)
        alive = bookdrop("health", "live", "returns")
        with stopped(process.pid):
            os.utime(beat, (time.time() - 60, time.time() - 60))  # a minute later
            hanging = bookdrop("health", "live", "returns")
            code, findings = bookdrop("doctor", broker_url=broker_url, database_url=sqlite_url)
        again = until(lambda: bookdrop("health", "live", "returns")[0] == 0)
    finally:
        stop(process)
    gone = bookdrop("health", "live", "returns")

    assert (alive[0], alive[1]["live"]) == (0, True)
    assert (hanging[0], hanging[1]["live"]) == (1, False)
    assert hanging[1]["heartbeat_age_seconds"] > 30
    assert again
    assert gone == (1, {"live": False, "role": "returns", "heartbeat_age_seconds": None, "file": str(beat)})
    assert code == 1
    assert next(each["message"] for each in findings if not each["ok"] and each["part"] == "worker") == (
        "returns: no worker responds within 2 s"
    )
    assert any(each["part"] == "heartbeat" and "hangs" in each["advice"] for each in findings)


@pytest.mark.long
@pytest.mark.thorough
def test_a_process_that_hangs_is_ended_at_its_time_limit(broker_url, sqlite_url, library, tmp_path):
    """A process of the pool that stands still with a scan is killed and replaced; asked again, the scan is answered."""
    _, [barcode] = library.request()
    wire = Wire(broker_url)
    parts = {"broker_url": broker_url, "database_url": sqlite_url, "folder": tmp_path}
    process = start_worker("returns", "--concurrency", "1", BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS="30", **parts)
    holder = sqlite3.connect(tmp_path / "bookdrop.db", isolation_level=None)
    started: list[Any] = []
    try:
        wire.answers(wire.send(library.scan("warm-up")))
        [hung] = children(process.pid)
        holder.execute("BEGIN IMMEDIATE")  # so that it is in the middle of the scan
        with Connection(broker_url) as connection:
            events = app.events.Receiver(connection, handlers={"task-started": started.append}).consume(
                limit=None, wakeup=False
            )
            next(events)  # a heartbeat: from here on everything is heard
            event_id = wire.send(library.scan(barcode))
            while not started:
                next(events)
        os.kill(hung, signal.SIGSTOP)
        holder.execute("ROLLBACK")
        until(lambda: children(process.pid) - {hung} and hung not in children(process.pid))
        wire.send(wire.sent[event_id])  # the station's part
        [reply] = wire.answers(event_id)
    finally:
        holder.close()
        stop(process)
        wire.close()

    assert reply["outcome"] == "returned"


def test_liveness_needs_neither_broker_nor_database(bookdrop, tmp_path):
    """With both away, a worker whose loop turns is live: restarting it would help nothing."""
    (tmp_path / "returns.heartbeat").touch()

    assert bookdrop("health", "live", "returns")[0] == 0


@pytest.mark.thorough
def test_readiness_needs_broker_database_and_tables(bookdrop, broker_url, sqlite_url, tmp_path):
    """Ready is where broker and database answer and the tables are up to date; otherwise the part is named."""
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    (tmp_path / "empty.db").touch()

    ready = bookdrop("health", "ready", broker_url=broker_url, database_url=sqlite_url)
    wrong = {
        "broker": bookdrop("health", "ready", database_url=sqlite_url),
        "database": bookdrop("health", "ready", broker_url=broker_url),
        "migrations": bookdrop("health", "ready", broker_url=broker_url, database_url=empty),
    }

    assert (ready[0], ready[1]["ready"]) == (0, True)
    for part, (code, told) in wrong.items():
        assert (code, told["ready"]) == (1, False)
        assert [each["part"] for each in told["findings"] if not each["ok"]] == [part]


@pytest.mark.long
@pytest.mark.thorough
def test_the_doctor_looks_at_everything(bookdrop, broker_url, sqlite_url, library, tmp_path):
    """Without print workers, and with a printer on hold: each is told with what to do; what is well is told as well."""
    with library.engine.begin() as connection:
        connection.execute(update(Printer).where(Printer.code == "north-slips").values(on_hold=True))
    wire = Wire(broker_url)
    parts = {"broker_url": broker_url, "database_url": sqlite_url, "folder": tmp_path}
    with worker("returns", **parts):
        wire.answers(wire.send(library.scan("forged", key="not-the-key")))
        code, findings = bookdrop("doctor", broker_url=broker_url, database_url=sqlite_url)
    wire.close()

    assert code == 1
    assert {each["part"] for each in findings} >= {
        "settings", "database", "migrations", "stations", "outbox", "quarantine", "slips", "printer", "broker", "worker",
    }  # fmt: skip
    bad = {each["message"]: each["advice"] for each in findings if not each["ok"]}
    assert "'bookdrop worker printing'" in bad["printing: no worker responds within 2 s"]
    assert bad["north-slips is on hold"]
    assert not any(message.startswith("returns:") for message in bad)
    [quarantine] = [each for each in findings if each["part"] == "quarantine"]
    assert (quarantine["ok"], quarantine["message"]) == (True, "1 messages")
    assert all(each["advice"] for each in findings if not each["ok"])


def test_status_names_a_worker_that_hangs(bookdrop, tmp_path):
    """`bookdrop status` tells a worker whose heartbeat is old from one that is alive."""
    home = DataDirectory(tmp_path / "home")
    home.prepare()
    for name, seconds in (("returns", 60), ("printing", 0)):
        beat = home.path / f"{name}.heartbeat"
        beat.touch()
        os.utime(beat, (time.time() - seconds, time.time() - seconds))
    us = (os.getpid(), started_at(os.getpid()) or "")
    with home.lock():
        home.save_state(ProcessState(pid=os.getpid(), children={"returns": us, "printing": us}))
        code, told = bookdrop("status", "--home", str(home.path))

    assert code == 0
    assert {name: each["hangs"] for name, each in told["processes"].items()} == {"returns": True, "printing": False}


def test_a_queue_that_nobody_takes_from_is_named():
    """A branch whose slips no print worker takes is found, although print workers answer for others."""
    found = list(workers.consumers({"printing-main@here": ["printing.main", "print-actions"]}, ["main", "north"]))

    [queue] = [each for each in found if each.part == "queue"]
    assert (queue.ok, queue.message) == (False, "printing.north: no worker consumes it")
    assert "--branch north" in queue.advice
