# SPDX-License-Identifier: Apache-2.0
"""A real worker of role `returns`, on a real broker and both databases, spoken to as any station would."""

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
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(model)).scalar_one()


def test_a_scan_goes_all_the_way(deployment, raw_station, library, engine):
    """Queue, worker, one transaction, answer on the reply channel; sent again, the same bytes come again."""
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


def test_many_at_once_are_each_answered(deployment, raw_station, library, engine):
    """A crowd of scans, each item twice, in two processes: every scan answered, each item returned once."""
    barcodes = [library.request()[1][0] for _ in range(60)]
    payloads = [library.scan(barcode) for barcode in barcodes * 2]

    with deployment.worker("returns"):
        replies = raw_station.replies_to(*[raw_station.send(payload) for payload in payloads])
        raw_station.wait_until(lambda: count(engine, OutboxEntry) == 0)

    outcomes = [reply["outcome"] for reply in replies]
    assert (outcomes.count("returned"), outcomes.count("already_returned")) == (60, 60)
    assert count(engine, RequestEvent) == 60


def test_plain_celery_command_is_a_worker_too(deployment, raw_station, library):
    """`celery -A workers.app worker -Q returns` does the same."""
    _, [barcode] = library.request()

    with deployment.celery_worker("-P", "solo"):
        [reply] = raw_station.replies_to(raw_station.send(library.scan(barcode)))

    assert reply["outcome"] == "returned"


def test_killed_child_costs_nothing(deployment, raw_station, library, engine):
    """Every process of the worker is killed with scans in hand: each is answered all the same, once in effect."""
    barcodes = [library.request()[1][0] for _ in range(30)]
    process = deployment.start_worker("returns")
    try:
        raw_station.replies_to(raw_station.send(library.scan(barcodes[0])))
        sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes[1:]]
        kill_group(process)
        process = deployment.start_worker("returns")
        # The station's part: it asks again with the same ids until it is answered.
        for event_id in sent:
            raw_station.send(raw_station.sent[event_id])
        raw_station.replies_to(*sent)
    finally:
        stop(process)

    assert count(engine, RequestEvent) == 30


def test_distrusted_message_is_answered_and_kept(deployment, raw_station, library, engine):
    """A wrong signature gets a refusal on the reply channel, and the message is in quarantine."""
    _, [barcode] = library.request()

    with deployment.worker("returns"):
        [reply] = raw_station.replies_to(raw_station.send(library.scan(barcode, key="not-the-key")))

    assert (reply["outcome"], reply["reason"]) == ("refused", "bad_signature")
    assert count(engine, QuarantinedMessage) == 1


def test_worker_tells_its_health_and_ends_well(deployment, raw_station, library):
    """The heartbeat file is touched while the worker runs, and gone after TERM, which ends with code 0."""
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
    """Each line of the log is JSON; the one of a Return carries event, station, request and task."""
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


def test_monitoring_sees_ids_only(deployment, raw_station, library, celery_app):
    """Task events and remote control name an event by its id; neither barcode nor note is shown."""
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
