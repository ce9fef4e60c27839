# SPDX-License-Identifier: Apache-2.0
"""A returns worker as a process, on a real broker and both databases, with a station in plain kombu."""

import json
import threading
from typing import Any

import pytest
from sqlalchemy import func, select

from schemas.models import OutboxEntry, QuarantinedMessage, RequestEvent
from tests.library import LENDER
from tests.polling import wait_until
from tests.processes import kill_group, stop

pytestmark = pytest.mark.long


def count(engine, model):
    """Number of rows."""
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(model)).scalar_one()


def test_scan_gets_a_reply_and_a_resend_the_same_bytes(deployment, raw_station, library, engine):
    """From queue to worker, transaction and reply queue; the resent event gets the same bytes."""
    external_id, [barcode] = library.request()
    payload = library.scan(barcode)

    with deployment.worker("returns"):
        [reply] = raw_station.replies_to(raw_station.send(payload))
        raw_station.send(payload)
        raw_station.wait_until(lambda: len(raw_station.bodies) == 2)

    assert reply["message"] == f"The item's destination is {LENDER}"
    assert reply["request"] == external_id
    assert raw_station.bodies[0] == raw_station.bodies[1]
    assert count(engine, RequestEvent) == 1


def test_many_scans_at_once_each_get_a_reply(deployment, raw_station, library, engine):
    """Sixty items are scanned twice, with two processes: every scan gets a reply, each item is returned once."""
    barcodes = [library.request()[1][0] for _ in range(60)]
    payloads = [library.scan(barcode) for barcode in barcodes * 2]

    with deployment.worker("returns"):
        replies = raw_station.replies_to(*[raw_station.send(payload) for payload in payloads])
        raw_station.wait_until(lambda: count(engine, OutboxEntry) == 0)

    outcomes = [reply["outcome"] for reply in replies]
    assert (outcomes.count("returned"), outcomes.count("already_returned")) == (60, 60)
    assert count(engine, RequestEvent) == 60


def test_celery_command_starts_a_worker(deployment, raw_station, library):
    """`celery -A workers.app worker -Q returns` processes scans as `bookdrop worker` does."""
    _, [barcode] = library.request()

    with deployment.celery_worker("-P", "solo"):
        [reply] = raw_station.replies_to(raw_station.send(library.scan(barcode)))

    assert reply["outcome"] == "returned"


def test_killed_worker_loses_no_scan(deployment, raw_station, library, engine):
    """Every process of the worker is killed with scans in progress: each scan gets a reply, and has one effect."""
    barcodes = [library.request()[1][0] for _ in range(30)]
    process = deployment.start_worker("returns")
    try:
        raw_station.replies_to(raw_station.send(library.scan(barcodes[0])))
        sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes[1:]]
        kill_group(process)
        process = deployment.start_worker("returns")
        # The station's part: it resends the same ids until they have replies.
        for event_id in sent:
            raw_station.send(raw_station.sent[event_id])
        raw_station.replies_to(*sent)
    finally:
        stop(process)

    assert count(engine, RequestEvent) == 30


def test_wrong_signature_is_refused_and_quarantined(deployment, raw_station, library, engine):
    """A wrong signature gets a refusal on the reply queue, and the message is in quarantine."""
    _, [barcode] = library.request()

    with deployment.worker("returns"):
        [reply] = raw_station.replies_to(raw_station.send(library.scan(barcode, key="not-the-key")))

    assert (reply["outcome"], reply["reason"]) == ("refused", "bad_signature")
    assert count(engine, QuarantinedMessage) == 1


def test_heartbeat_file_is_touched_until_term(deployment, raw_station, library):
    """The worker touches its heartbeat file while it runs, and deletes it at TERM, which ends it with code 0."""
    _, [barcode] = library.request()
    beat = deployment.heartbeat("returns")

    process = deployment.start_worker("returns")
    try:
        raw_station.replies_to(raw_station.send(library.scan(barcode)))
        first = beat.stat().st_mtime
        wait_until(lambda: beat.stat().st_mtime > first, "the heartbeat continues")
    finally:
        code = stop(process)

    assert code == 0
    assert not beat.exists()


def test_log_lines_are_json_with_bound_ids(deployment, raw_station, library):
    """Each line of the log is JSON; the line of a Return carries event, station, request and task."""
    external_id, [barcode] = library.request()

    with deployment.worker("returns", BOOKDROP_LOG_FORMAT="json"):
        event_id = raw_station.send(library.scan(barcode))
        raw_station.replies_to(event_id)

    lines = deployment.log("returns").splitlines()
    applied = [json.loads(line) for line in lines if "return_applied" in line]
    assert len(applied) == 1
    assert applied[0].items() >= {
        "event_id": event_id,
        "station": "main-desk-1",
        "request": external_id,
        "task": "returns.process_scan",
        "task_id": event_id,
    }.items()  # fmt: skip


def test_task_events_contain_ids_only(deployment, raw_station, library, celery_app):
    """Task events name an event by its id: they contain neither the barcode nor a note."""
    external_id, _ = library.request()
    seen: list[Any] = []
    payload = library.return_requested(external_id, note="a very private note")

    with deployment.worker("returns"), celery_app.connection_for_read(deployment.broker_url) as connection:
        receiver = celery_app.events.Receiver(connection, handlers={"*": seen.append})
        receiving = threading.Thread(target=lambda: receiver.capture(wakeup=False))
        receiving.start()
        raw_station.wait_until(lambda: any(event["type"] == "worker-heartbeat" for event in seen))
        raw_station.replies_to(raw_station.send(payload))
        raw_station.wait_until(lambda: any(event["type"] == "task-succeeded" for event in seen))
        receiver.should_stop = True
        receiving.join()

    text = json.dumps(seen, default=str)
    received = next(
        event for event in seen if event["type"] == "task-received" and event["uuid"] == payload["event_id"]
    )
    assert received["args"] == repr((payload["event_id"],))
    assert "private" not in text
    assert external_id not in text
