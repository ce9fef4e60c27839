# SPDX-License-Identifier: Apache-2.0
"""Batch while busy: what gathers goes in one transaction, and nothing of a worker's manners is lost by it."""

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from sqlalchemy import insert, select

from schemas.database import open_engine
from schemas.models import InboxEntry, Partner, QuarantinedMessage, RequestEvent
from tests.library import Library
from tests.wire import Wire, start_worker, stop, worker
from workers.app import app

pytestmark = [pytest.mark.long, pytest.mark.thorough]


@pytest.fixture
def library(sqlite_url, tmp_path):
    """A small library on SQLite."""
    engine = open_engine(sqlite_url)
    yield Library(engine, tmp_path / "spool").open()
    engine.dispose()


@pytest.fixture
def parts(broker_url, sqlite_url, tmp_path, monkeypatch):
    """What a worker is started with; this process can ask it by remote control."""
    monkeypatch.setenv("BOOKDROP_BROKER_URL", broker_url)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", sqlite_url)
    monkeypatch.setattr(app.conf, "broker_url", broker_url)
    return {"broker_url": broker_url, "database_url": sqlite_url, "folder": tmp_path}


@pytest.fixture
def wire(broker_url):
    wire = Wire(broker_url)
    yield wire
    wire.close()


@pytest.fixture
def busy(tmp_path):
    """Hold the database, so that the worker's processes stay in their transactions and events gather."""

    @contextmanager
    def hold():
        holder = sqlite3.connect(tmp_path / "bookdrop.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            holder.execute("ROLLBACK")
            holder.close()

    return hold


def transactions(library):
    """How many transactions answered how many events."""
    with library.engine.connect() as connection:
        times = connection.execute(select(InboxEntry.answered_at)).scalars().all()
    return len(set(times)), len(times)


def received(ids, patience=20.0):
    """Wait until the worker has all of them in hand."""
    deadline = time.monotonic() + patience
    while True:
        replies = app.control.inspect(timeout=1).reserved() or {}
        active = app.control.inspect(timeout=1).active() or {}
        held = {task["id"] for tasks in [*replies.values(), *active.values()] for task in tasks}
        if set(ids) <= held:
            return
        assert time.monotonic() < deadline, f"{len(set(ids) & held)} of {len(ids)} are in hand"


def test_what_gathers_goes_in_one_transaction(library, parts, wire, busy):
    """While both processes are busy 40 events gather; then few transactions answer them all, each once."""
    barcodes = [library.request()[1][0] for _ in range(40)]

    with worker("returns", **parts):
        wire.answers(wire.send(library.scan("warm-up")))
        with busy():
            sent = [wire.send(library.scan(barcode)) for barcode in barcodes]
            received(sent)
        replies = wire.answers(*sent)

    assert {reply["outcome"] for reply in replies} == {"returned"}
    made, answered = transactions(library)
    assert answered == 41
    assert made <= 8


def test_a_culprit_harms_no_other(library, parts, wire, busy):
    """One event that makes the whole group fail is set apart by itself; the others of its group are returned."""
    with library.engine.begin() as connection:
        partner_id = connection.execute(
            insert(Partner).values(code="XX-BAD", name="x" * 300).returning(Partner.id)
        ).scalar_one()
    barcodes = [library.request()[1][0] for _ in range(10)]
    _, [culprit] = library.request(partner_id=partner_id)

    with worker("returns", **parts):
        wire.answers(wire.send(library.scan("warm-up")))
        with busy():
            sent = [wire.send(library.scan(barcode)) for barcode in [*barcodes, culprit]]
            received(sent)
        *replies, refused = wire.answers(*sent, patience=60)

    assert {reply["outcome"] for reply in replies} == {"returned"}
    assert (refused["outcome"], refused["reason"]) == ("refused", "failed")
    with library.engine.connect() as connection:
        assert connection.execute(select(QuarantinedMessage.reason)).all() == [("failed",)]
    assert "batch_split" in (parts["folder"] / "returns.log").read_text()


def test_a_killed_process_costs_nothing(library, parts, wire, busy):
    """A process that dies with a group in hand: the worker does its events one by one, without anybody asking again."""
    barcodes = [library.request()[1][0] for _ in range(20)]

    with worker("returns", **parts) as process:
        wire.answers(wire.send(library.scan("warm-up")))
        with busy():
            sent = [wire.send(library.scan(barcode)) for barcode in barcodes]
            received(sent)
        with busy():  # the first events are through, or wait; a group is in a process now
            time.sleep(0.3)
            for child in children_of(process):
                os.kill(child, signal.SIGKILL)
            time.sleep(0.3)
        replies = wire.answers(*sent, patience=60)

    assert {reply["outcome"] for reply in replies} == {"returned"}
    with library.engine.connect() as connection:
        assert len(connection.execute(select(RequestEvent.id)).all()) == 20


@pytest.fixture
def heard(parts):
    """What monitoring hears from now on: kinds of events by task."""
    heard: dict[str, list[str]] = {}
    ended = threading.Event()

    def listen():
        with app.connection_for_read() as connection:

            def note(event):
                if event["type"].startswith("task-"):
                    heard.setdefault(event["uuid"], []).append(event["type"])

            receiver = app.events.Receiver(connection, handlers={"*": note})
            while not ended.is_set():
                try:
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)
                except TimeoutError:
                    continue

    listening = threading.Thread(target=listen)
    listening.start()
    yield heard
    ended.set()
    listening.join()


IN_ORDER = ["task-received", "task-started", "task-succeeded"]


def test_monitoring_hears_of_each_event_in_order(library, parts, wire, busy, heard):
    """For each event of a group monitoring hears received, started, succeeded, in this order."""
    barcodes = [library.request()[1][0] for _ in range(20)]

    with worker("returns", **parts):
        wire.answers(wire.send(library.scan("warm-up")))
        with busy():
            sent = [wire.send(library.scan(barcode)) for barcode in barcodes]
            received(sent)
        wire.answers(*sent)
        time.sleep(2)

    assert {event_id: heard.get(event_id) for event_id in sent} == dict.fromkeys(sent, IN_ORDER)


def test_what_has_gathered_for_monitoring_is_told_when_the_worker_ends(library, parts, wire, heard):
    """A worker whose events would gather for half a minute ends at once: each is told all the same."""
    barcodes = [library.request()[1][0] for _ in range(5)]
    gathers_long = (
        "import workers.runtime.event_dispatcher as its; its.FLUSH_SECONDS = 30; from workers.cli import main; main()"
    )

    with (parts["folder"] / "returns.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", gathers_long, "worker", "returns"], stdout=log, stderr=log, start_new_session=True
        )
        try:
            sent = [wire.send(library.scan(barcode)) for barcode in barcodes]
            wire.answers(*sent)
            before = dict(heard)
        finally:
            code = stop(process)
        time.sleep(1)

    assert (before, code) == ({}, 0)
    assert heard == dict.fromkeys(sent, IN_ORDER)


def test_what_monitoring_hears_travels_together(library, parts, wire, valkey):
    """Three events of monitoring for each scan, and far fewer messages: each costs as much as many events do."""
    barcodes = [library.request()[1][0] for _ in range(60)]

    with valkey.pubsub() as monitoring:
        monitoring.psubscribe("*celeryev/task.*")
        with worker("returns", **parts):
            for barcode in barcodes:
                wire.answers(wire.send(library.scan(barcode)))
        heard = iter(lambda: monitoring.get_message(timeout=1), None)
        messages = [json.loads(each["data"]) for each in heard if each["type"] == "pmessage"]

    told = [len(json.loads(base64.b64decode(message["body"]))) for message in messages]
    assert sum(told) == 3 * len(barcodes)
    assert len(told) < 2 * len(barcodes)  # a message for each would be three times as many as scans


def test_a_warm_shutdown_gives_back_what_gathered(library, parts, wire, busy):
    """TERM while events gather: what is in hand is finished, the rest goes back, and the next worker does it."""
    barcodes = [library.request()[1][0] for _ in range(30)]

    process = start_worker("returns", **parts)
    wire.answers(wire.send(library.scan("warm-up")))
    with busy():
        sent = [wire.send(library.scan(barcode)) for barcode in barcodes]
        received(sent)
        process.terminate()
        time.sleep(1)
    code = process.wait(30)
    with worker("returns", **parts):
        replies = wire.answers(*sent, patience=60)

    assert code == 0
    assert {reply["outcome"] for reply in replies} == {"returned"}
    with library.engine.connect() as connection:
        assert len(connection.execute(select(RequestEvent.id)).all()) == 30


def test_a_revoked_event_is_not_done(library, parts, wire, busy):
    """An event that is revoked while it waits is discarded; its neighbours are done."""
    barcodes = [library.request()[1][0] for _ in range(10)]

    with worker("returns", **parts):
        wire.answers(wire.send(library.scan("warm-up")))
        with busy():
            sent = [wire.send(library.scan(barcode)) for barcode in barcodes]
            received(sent)
            app.control.revoke(sent[-1], reply=True, timeout=2)
        wire.answers(*sent[:-1])
        time.sleep(1)

    assert sent[-1] not in {reply["event_id"] for reply in wire.replies()}


@contextmanager
def plain_worker(*options, **environment):
    """A returns worker started with Celery's own command."""
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-Q", "returns", *options],
        env={**os.environ, "BOOKDROP_ROLE": "returns", **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        stop(process)


def begun(ids):
    """Which of them are in a process now."""
    told = app.control.inspect(timeout=0.5).active() or {}
    return {task["id"] for tasks in told.values() for task in tasks} & set(ids)


def children_of(process):
    """The processes of a worker's pool."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    return [int(child) for child in found.stdout.split()]


def test_inspect_and_its_kin_show_what_gathered(library, parts, wire, busy):
    """What gathers is told by `inspect reserved`, what is begun by `inspect active`, each event once; then neither."""
    barcodes = [library.request()[1][0] for _ in range(10)]

    with worker("returns", **parts):
        wire.answers(wire.send(library.scan("warm-up")))
        with busy():
            sent = [wire.send(library.scan(barcode)) for barcode in barcodes]
            received(sent)
            asked = app.control.inspect(timeout=2)
            told = [
                task["id"]
                for answer in (asked.active(), asked.reserved())
                for tasks in (answer or {}).values()
                for task in tasks
            ]
        wire.answers(*sent)
        time.sleep(1)
        left = [*(asked.active() or {}).values(), *(asked.reserved() or {}).values()]

    assert set(sent) <= set(told)
    assert left == [[], []]


def test_a_group_that_runs_too_long_is_done_one_by_one(library, parts, wire, busy):
    """The process of a group that hangs is ended at its time limit; each event is done once."""
    barcodes = library.many(120)

    with plain_worker("-c", "1", BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS="30") as process:
        wire.answers(wire.send(library.scan("warm-up")))
        [child] = children_of(process)
        with busy():
            sent = [wire.send(library.scan(barcode)) for barcode in barcodes]
            received(sent[:20])  # one is in the process, the others gather
        wire.wait(lambda: len(wire.replies()) >= 2)
        with busy():
            while len(begun(sent)) < 2:
                pass
            os.kill(child, signal.SIGSTOP)
            time.sleep(16)  # the limit is 15 s then
        replies = wire.answers(*sent, patience=60)

    assert {reply["outcome"] for reply in replies} == {"returned"}
    with library.engine.connect() as connection:
        assert len(connection.execute(select(RequestEvent.id)).all()) == 120


def test_a_cold_shutdown_loses_nothing(library, parts, wire, busy):
    """QUIT while events gather: all that is unanswered goes back, and the next worker does it, each once."""
    barcodes = [library.request()[1][0] for _ in range(30)]

    process = start_worker("returns", **parts)
    wire.answers(wire.send(library.scan("warm-up")))
    with busy():
        sent = [wire.send(library.scan(barcode)) for barcode in barcodes]
        received(sent)
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
    with worker("returns", **parts):
        replies = wire.answers(*sent, patience=60)

    assert {reply["outcome"] for reply in replies} == {"returned"}
    with library.engine.connect() as connection:
        assert len(connection.execute(select(RequestEvent.id)).all()) == 30


@pytest.mark.parametrize("options", [("-P", "solo"), ("--autoscale", "2,1"), ("-c", "1")], ids=" ".join)
def test_other_pools_do_the_same_work(library, parts, wire, options):
    """Solo, autoscaled, or one process: every scan is answered, each item is returned once."""
    barcodes = [library.request()[1][0] for _ in range(30)]
    sent = [wire.send(library.scan(barcode)) for barcode in barcodes * 2]
    with plain_worker(*options):
        replies = wire.answers(*sent, patience=60)

    outcomes = [reply["outcome"] for reply in replies]
    assert (outcomes.count("returned"), outcomes.count("already_returned")) == (30, 30)
    with library.engine.connect() as connection:
        assert len(connection.execute(select(RequestEvent.id)).all()) == 30


def test_a_log_line_of_a_group_names_its_event(library, parts, wire, busy):
    """The line of each Return in a group carries its own event, station, request and task."""
    requests = [library.request() for _ in range(10)]

    with worker("returns", BOOKDROP_LOG_FORMAT="json", **parts):
        wire.answers(wire.send(library.scan("warm-up")))
        with busy():
            sent = [wire.send(library.scan(barcode)) for _, [barcode] in requests]
            received(sent)
        wire.answers(*sent)

    lines = [
        json.loads(line) for line in (parts["folder"] / "returns.log").read_text().splitlines() if line.startswith("{")
    ]
    applied = {line["event_id"]: line for line in lines if line["event"] == "return_applied"}
    for event_id, (external_id, _) in zip(sent, requests, strict=True):
        assert applied[event_id].items() >= {
            "request": external_id, "task": "returns.process_scan", "task_id": event_id, "station": "main-desk-1"
        }.items()  # fmt: skip
