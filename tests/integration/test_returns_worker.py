# SPDX-License-Identifier: Apache-2.0
"""A real worker of role `returns`, on a real broker and both databases, spoken to as any station would."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from sqlalchemy import func, select

from schemas.models import OutboxEntry, QuarantinedMessage, RequestEvent
from tests.library import LENDER
from tests.wire import Wire, start_worker, stop, worker
from workers.app import app

pytestmark = pytest.mark.long


@pytest.fixture
def parts(broker_url, database_url, tmp_path):
    """What a worker is started with."""
    return {"broker_url": broker_url, "database_url": database_url, "folder": tmp_path}


@pytest.fixture
def wire(broker_url):
    wire = Wire(broker_url)
    yield wire
    wire.close()


def count(engine, model):
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(model)).scalar_one()


def test_a_scan_goes_all_the_way(parts, wire, library, engine):
    """Queue, worker, one transaction, answer on the reply channel; sent again, the same bytes come again."""
    external_id, [barcode] = library.request()
    payload = library.scan(barcode)

    with worker("returns", **parts):
        [reply] = wire.answers(wire.send(payload))
        wire.send(payload)
        wire.wait(lambda: len(wire.raw) == 2)

    assert reply["message"] == f"The item's destination is {LENDER}"
    assert reply["request"] == external_id
    assert wire.raw[0] == wire.raw[1]
    assert count(engine, RequestEvent) == 1


def test_many_at_once_are_each_answered(parts, wire, library, engine):
    """A crowd of scans, each item twice, in two processes: every scan answered, each item returned once."""
    barcodes = [library.request()[1][0] for _ in range(60)]
    payloads = [library.scan(barcode) for barcode in barcodes * 2]

    with worker("returns", **parts):
        replies = wire.answers(*[wire.send(payload) for payload in payloads])
        wire.wait(lambda: count(engine, OutboxEntry) == 0)

    outcomes = [reply["outcome"] for reply in replies]
    assert (outcomes.count("returned"), outcomes.count("already_returned")) == (60, 60)
    assert count(engine, RequestEvent) == 60


def test_plain_celery_command_is_a_worker_too(parts, wire, library):
    """`celery -A workers.app worker -Q returns` does the same."""
    _, [barcode] = library.request()
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-Q", "returns", "-P", "solo"],
        env={
            **os.environ,
            "BOOKDROP_BROKER_URL": parts["broker_url"],
            "BOOKDROP_DATABASE_URL": parts["database_url"],
            "BOOKDROP_ROLE": "returns",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        [reply] = wire.answers(wire.send(library.scan(barcode)))
    finally:
        stop(process)

    assert reply["outcome"] == "returned"


def test_killed_child_costs_nothing(parts, wire, library, engine):
    """Every process of the worker is killed with scans in hand: each is answered all the same, once in effect."""
    barcodes = [library.request()[1][0] for _ in range(30)]
    process = start_worker("returns", **parts)
    try:
        wire.answers(wire.send(library.scan(barcodes[0])))
        sent = [wire.send(library.scan(barcode)) for barcode in barcodes[1:]]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process = start_worker("returns", **parts)
        # The station's part: it asks again with the same ids until it is answered.
        for event_id in sent:
            wire.send(wire.sent[event_id])
        wire.answers(*sent)
    finally:
        stop(process)

    assert count(engine, RequestEvent) == 30


def test_distrusted_message_is_answered_and_kept(parts, wire, library, engine):
    """A wrong signature gets a refusal on the reply channel, and the message is in quarantine."""
    _, [barcode] = library.request()

    with worker("returns", **parts):
        [reply] = wire.answers(wire.send(library.scan(barcode, key="not-the-key")))

    assert (reply["outcome"], reply["reason"]) == ("refused", "bad_signature")
    assert count(engine, QuarantinedMessage) == 1


def test_worker_tells_its_health_and_ends_well(parts, wire, library):
    """The heartbeat file is touched while the worker runs, and gone after TERM, which ends with code 0."""
    _, [barcode] = library.request()
    beat = parts["folder"] / "returns.heartbeat"

    process = start_worker("returns", **parts)
    wire.answers(wire.send(library.scan(barcode)))
    fresh = time.time() - beat.stat().st_mtime
    code = stop(process)

    assert fresh < 10
    assert code == 0
    assert not beat.exists()


def test_log_lines_are_json_with_bound_ids(parts, wire, library):
    """Each line of the log is JSON; the one of a Return carries event, station, request and task."""
    external_id, [barcode] = library.request()

    with worker("returns", BOOKDROP_LOG_FORMAT="json", **parts):
        event_id = wire.send(library.scan(barcode))
        wire.answers(event_id)

    lines = (parts["folder"] / "returns.log").read_text().splitlines()
    applied = [json.loads(line) for line in lines if "return_applied" in line]
    assert len(applied) == 1
    assert applied[0].items() >= {
        "event_id": event_id,
        "station": "main-desk-1",
        "request": external_id,
        "task": "returns.process_scan",
        "task_id": event_id,
    }.items()  # fmt: skip


def test_monitoring_sees_ids_only(parts, wire, library, monkeypatch):
    """Events and remote control name an event by its id: neither the barcode nor a note is shown."""
    monkeypatch.setenv("BOOKDROP_BROKER_URL", parts["broker_url"])
    external_id, _ = library.request()
    seen: list[Any] = []
    payload = library.ask_return(external_id, note="a very private note")

    with worker("returns", **parts), app.connection_for_read(parts["broker_url"]) as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        listening = threading.Thread(target=lambda: receiver.capture(wakeup=False))
        listening.start()
        wire.wait(lambda: any(event["type"] == "worker-heartbeat" for event in seen))
        wire.answers(wire.send(payload))
        wire.wait(lambda: any(event["type"] == "task-succeeded" for event in seen))
        receiver.should_stop = True
        listening.join()

    text = json.dumps(seen, default=str)
    received = next(e for e in seen if e["type"] == "task-received" and e["uuid"] == payload["event_id"])
    assert received["args"] == repr((payload["event_id"],))
    assert "private" not in text
    assert external_id not in text
