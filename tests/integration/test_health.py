# SPDX-License-Identifier: Apache-2.0
"""Health of workers: a hanging worker or process is detected; and the reports of probes and doctor."""

import json
import os
import signal
import time
from dataclasses import replace
from typing import Any

import pytest
from kombu import Connection
from sqlalchemy import update

from schemas.models import Printer
from tests.polling import wait_until
from tests.processes import Deployment, children_of, stop, suspended
from workers.app import app
from workers.doctor import workers
from workers.embedded.data_dir import DataDirectory, ProcessState
from workers.embedded.supervisor import started_at

NOWHERE = "redis://127.0.0.1:1/0"

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
def unreachable(tmp_path):
    """A deployment whose broker and database cannot be reached."""
    return Deployment("redis://127.0.0.1:1/0", "sqlite:////nowhere/bookdrop.db", tmp_path)


def run(deployment, *arguments):
    """Run a `bookdrop` command beside a returns worker; return its exit code and its JSON."""
    done = deployment.bookdrop(*arguments, "--json", BOOKDROP_HEARTBEAT_FILE=str(deployment.heartbeat("returns")))
    return done.returncode, json.loads(done.stdout)


@pytest.mark.long
@pytest.mark.thorough
def test_suspended_worker_is_not_live(deployment, library):
    """A suspended worker touches no heartbeat file: its live probe fails and the doctor names its role, until it resumes."""
    beat = deployment.heartbeat("returns")
    process = deployment.start_worker("returns")
    try:
        wait_until(beat.exists)
        alive = run(deployment, "health", "live", "returns")
        with suspended([process.pid]):
            os.utime(beat, (time.time() - 60, time.time() - 60))  # as after a minute
            hanging = run(deployment, "health", "live", "returns")
            code, findings = run(deployment, "doctor")
        again = wait_until(lambda: run(deployment, "health", "live", "returns")[0] == 0)
    finally:
        stop(process)
    gone = run(deployment, "health", "live", "returns")

    assert (alive[0], alive[1]["live"]) == (0, True)
    assert (hanging[0], hanging[1]["live"]) == (1, False)
    assert hanging[1]["heartbeat_age_seconds"] > 30
    assert again
    ended = {"heartbeat_age_seconds": None, "file": str(beat)}
    assert gone == (1, {"live": False, "role": "returns", **ended, "workers": [ended]})
    assert code == 1
    assert next(each["message"] for each in findings if not each["ok"] and each["part"] == "worker") == (
        "returns: no worker responds within 2 s"
    )
    assert any(each["part"] == "heartbeat" and "hangs" in each["advice"] for each in findings)


@pytest.mark.long
@pytest.mark.thorough
def test_hanging_pool_process_is_replaced_at_its_time_limit(deployment, raw_station, library, sqlite_locked):
    """A suspended pool process with a scan is killed and replaced; the resent scan gets its reply."""
    _, [barcode] = library.request()
    started: list[Any] = []
    with deployment.worker("returns", "--concurrency", "1", BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS="30") as process:
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        [hung] = children_of(process)
        with sqlite_locked():  # so that the process is in the middle of the scan
            with Connection(deployment.broker_url) as connection:
                events = app.events.Receiver(connection, handlers={"task-started": started.append}).consume(
                    limit=None, wakeup=False
                )
                next(events)  # a heartbeat: all later events are received
                event_id = raw_station.send(library.scan(barcode))
                while not started:
                    next(events)
            os.kill(hung, signal.SIGSTOP)
        wait_until(lambda: set(children_of(process)) - {hung} and hung not in children_of(process))
        raw_station.send(raw_station.sent[event_id])  # the station's retry
        [reply] = raw_station.replies_to(event_id)

    assert reply["outcome"] == "returned"


def test_liveness_does_not_depend_on_broker_or_database(unreachable):
    """With both unreachable a worker whose loop runs is live: restarting it would not help."""
    unreachable.heartbeat("returns").touch()

    assert run(unreachable, "health", "live", "returns")[0] == 0


@pytest.mark.thorough
def test_readiness_depends_on_broker_database_and_tables(deployment, unreachable):
    """A worker is ready when broker and database respond and the tables are migrated; else the failing part is named."""
    empty = deployment.folder / "empty.db"
    empty.touch()

    ready = run(deployment, "health", "ready")
    failing = {
        part: run(replace(deployment, **wrong), "health", "ready")
        for part, wrong in (
            ("broker", {"broker_url": unreachable.broker_url}),
            ("database", {"database_url": unreachable.database_url}),
            ("migrations", {"database_url": f"sqlite:///{empty}"}),
        )
    }

    assert (ready[0], ready[1]["ready"]) == (0, True)
    for part, (code, report) in failing.items():
        assert (code, report["ready"]) == (1, False)
        assert [each["part"] for each in report["findings"] if not each["ok"]] == [part]


@pytest.mark.long
@pytest.mark.thorough
def test_doctor_reports_every_part(deployment, raw_station, library):
    """Without print workers and with a printer on hold: each has advice; parts without problems are listed as well."""
    with library.engine.begin() as connection:
        connection.execute(update(Printer).where(Printer.code == "north-slips").values(on_hold=True))
    with deployment.worker("returns"):
        raw_station.replies_to(raw_station.send(library.scan("forged", key="not-the-key")))
        code, findings = run(deployment, "doctor")

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


def test_status_names_a_worker_that_hangs(unreachable, tmp_path):
    """`bookdrop status` distinguishes a worker with an old heartbeat from a live one."""
    home = DataDirectory(tmp_path / "home")
    home.prepare()
    for name, seconds in (("returns", 60), ("printing", 0)):
        beat = home.path / f"{name}.heartbeat"
        beat.touch()
        os.utime(beat, (time.time() - seconds, time.time() - seconds))
    us = (os.getpid(), started_at(os.getpid()) or "")
    with home.lock():
        home.save_state(ProcessState(pid=os.getpid(), children={"returns": us, "printing": us}))
        code, report = run(unreachable, "status", "--home", str(home.path))

    assert code == 0
    assert {name: each["hangs"] for name, each in report["processes"].items()} == {"returns": True, "printing": False}


@pytest.mark.long
def test_status_without_a_data_directory_shows_the_installation(deployment, library):
    """Where services run the workers, `status` lists those that respond, with what waits; a missing role is code 1."""
    with deployment.worker("returns"), deployment.worker("housekeeping"):
        with deployment.worker("printing", "--branch", "main"):
            complete = wait_until(
                lambda: (found := run(deployment, "status"))[0] == 0 and found, "all workers respond", timeout=60
            )
            words = deployment.bookdrop("status").stdout
        without_printing = run(deployment, "status")

    assert [role for role, names in complete[1]["workers"].items() if len(names) == 1] == [*complete[1]["workers"]]
    assert complete[1]["waiting"]["messages_in_quarantine"] == 0
    assert words.startswith("bookdrop is up; broker ")
    assert (without_printing[0], without_printing[1]["workers"]["printing"]) == (1, [])


def test_status_of_an_installation_names_what_cannot_be_reached(unreachable):
    """Without broker and database the status is code 1, and names both."""
    code, report = run(unreachable, "status")

    assert (code, report["running"]) == (1, False)
    assert ["broker" in problem for problem in report["problems"]] == [True, False]
    assert ["database" in problem for problem in report["problems"]] == [False, True]


def test_queue_without_a_consumer_is_reported():
    """A branch without a print worker is reported, although print workers for other branches respond."""
    found = list(workers.consumers({"printing-main@here": ["printing.main", "print-actions"]}, ["main", "north"]))

    [queue] = [each for each in found if each.part == "queue"]
    assert (queue.ok, queue.message) == (False, "printing.north: no worker consumes it")
    assert "--branch north" in queue.advice
