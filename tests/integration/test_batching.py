# SPDX-License-Identifier: Apache-2.0
"""Batching: events that gather while all processes are sqlite_locked are processed in one transaction, as reliably as single ones."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import insert, select

from schemas.models import InboxEntry, OutboxEntry, Partner, QuarantinedMessage, RequestEvent
from tests.polling import wait_until
from tests.processes import children_of, stop, suspended

pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.databases("sqlite")]


def rows_of(library, model):
    """The primary keys of a table's rows."""
    with library.engine.connect() as connection:
        return connection.execute(select(model.id)).all()


def count_transactions(library):
    """Number of transactions, and of events that they processed."""
    with library.engine.connect() as connection:
        times = connection.execute(select(InboxEntry.answered_at)).scalars().all()
    return len(set(times)), len(times)


@pytest.fixture
def wait_until_received(celery_app):
    """Wait until the worker has received all of the events."""

    def wait(event_ids):
        def are_received():
            inspect = celery_app.control.inspect(timeout=10, limit=1)
            found = [*(inspect.reserved() or {}).values(), *(inspect.active() or {}).values()]
            return set(event_ids) <= {task["id"] for tasks in found for task in tasks}

        wait_until(are_received, f"{len(event_ids)} events are received")

    return wait


def test_events_gathered_while_busy_share_few_transactions(
    library, deployment, raw_station, sqlite_locked, wait_until_received
):
    """While both processes are busy, 40 events gather. A few transactions process them, each event once."""
    barcodes = [library.request()[1][0] for _ in range(40)]

    with deployment.worker("returns"):
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        with sqlite_locked():
            sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes]
            wait_until_received(sent)
        replies = raw_station.replies_to(*sent)

    assert {reply["outcome"] for reply in replies} == {"returned"}
    made, processed = count_transactions(library)
    assert processed == 41
    assert made <= 8


def test_failing_event_in_a_batch_is_quarantined_alone(
    library, deployment, raw_station, sqlite_locked, wait_until_received
):
    """One event fails the whole batch. The worker quarantines it alone; all other events of the batch are returned."""
    with library.engine.begin() as connection:
        partner_id = connection.execute(
            insert(Partner).values(code="XX-BAD", name="x" * 300).returning(Partner.id)
        ).scalar_one()
    barcodes = [library.request()[1][0] for _ in range(10)]
    _, [failing] = library.request(partner_id=partner_id)

    with deployment.worker("returns"):
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        with sqlite_locked():
            sent = [raw_station.send(library.scan(barcode)) for barcode in [*barcodes, failing]]
            wait_until_received(sent)
        *replies, refused = raw_station.replies_to(*sent)

    assert {reply["outcome"] for reply in replies} == {"returned"}
    assert (refused["outcome"], refused["reason"]) == ("refused", "failed")
    with library.engine.connect() as connection:
        assert connection.execute(select(QuarantinedMessage.reason)).all() == [("failed",)]
    assert "batch_split" in deployment.log("returns")


def test_killed_pool_process_loses_no_event_of_its_batch(
    library, deployment, raw_station, sqlite_locked, wait_until_received
):
    """A pool process is killed with a batch. The worker processes its events one by one, without a retry by the station."""
    barcodes = [library.request()[1][0] for _ in range(20)]

    with deployment.worker("returns") as process:
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        with sqlite_locked():
            sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes]
            wait_until_received(sent)
        with sqlite_locked():  # the first events are done or wait; a process holds a batch now
            time.sleep(0.3)
            for child in children_of(process):
                os.kill(child, signal.SIGKILL)
            time.sleep(0.3)
        replies = raw_station.replies_to(*sent)

    assert {reply["outcome"] for reply in replies} == {"returned"}
    with library.engine.connect() as connection:
        assert len(connection.execute(select(RequestEvent.id)).all()) == 20


@pytest.fixture
def task_events(celery_app):
    """Types of task events by task id, from the start of the test on."""
    types: dict[str, list[str]] = {}
    ended = threading.Event()

    def record(event):
        if event["type"].startswith("task-"):
            types.setdefault(event["uuid"], []).append(event["type"])

    def receive():
        with celery_app.connection_for_read() as connection:
            receiver = celery_app.events.Receiver(connection, handlers={"*": record})
            while not ended.is_set():
                try:
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)
                except TimeoutError:
                    continue

    thread = threading.Thread(target=receive)
    thread.start()
    yield types
    ended.set()
    thread.join()


IN_ORDER = ["task-received", "task-started", "task-succeeded"]


def test_task_events_of_a_batch_arrive_in_order(
    library, deployment, raw_station, sqlite_locked, wait_until_received, task_events
):
    """Monitors receive for each event of a batch: received, started, succeeded, in this order."""
    barcodes = [library.request()[1][0] for _ in range(20)]

    with deployment.worker("returns"):
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        with sqlite_locked():
            sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes]
            wait_until_received(sent)
        raw_station.replies_to(*sent)

    wait_until(lambda: all("task-succeeded" in task_events.get(event_id, ()) for event_id in sent), "all succeed")
    assert {event_id: task_events[event_id] for event_id in sent} == dict.fromkeys(sent, IN_ORDER)


def test_buffered_task_events_are_sent_at_shutdown(library, deployment, raw_station, task_events):
    """A worker that buffers task events for 30 s sends them when TERM ends it."""
    barcodes = [library.request()[1][0] for _ in range(5)]
    buffering = "import workers.runtime.event_dispatcher as module; module.FLUSH_SECONDS = 30; from workers.cli import main; main()"

    with (deployment.folder / "returns.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", buffering, "worker", "returns"], stdout=log, stderr=log, start_new_session=True
        )
        try:
            sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes]
            raw_station.replies_to(*sent)
            before = dict(task_events)
        finally:
            code = stop(process)

    assert (before, code) == ({}, 0)
    wait_until(lambda: task_events == dict.fromkeys(sent, IN_ORDER), lambda: task_events)


def test_task_events_share_messages(library, deployment, raw_station, valkey):
    """Each scan causes three task events. They share messages, because a message costs as much as many events."""
    barcodes = [library.request()[1][0] for _ in range(60)]

    with valkey.pubsub() as monitoring:
        monitoring.psubscribe("*celeryev/task.*")
        with deployment.worker("returns"):
            for barcode in barcodes:
                raw_station.replies_to(raw_station.send(library.scan(barcode)))
        received = iter(lambda: monitoring.get_message(timeout=1), None)
        messages = [json.loads(message["data"]) for message in received if message["type"] == "pmessage"]

    events = [len(json.loads(base64.b64decode(message["body"]))) for message in messages]
    assert sum(events) == 3 * len(barcodes)
    assert len(events) < 2 * len(barcodes)  # one message per event would be three per scan


def test_warm_shutdown_requeues_gathered_events(library, deployment, raw_station, sqlite_locked, wait_until_received):
    """TERM while events gather: the worker finishes running events and requeues the rest, and the next worker processes those."""
    barcodes = [library.request()[1][0] for _ in range(30)]

    process = deployment.start_worker("returns")
    raw_station.replies_to(raw_station.send(library.scan("warm-up")))
    with sqlite_locked():
        sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes]
        wait_until_received(sent)
        process.terminate()
        time.sleep(1)
    code = process.wait(30)
    with deployment.worker("returns"):
        replies = raw_station.replies_to(*sent)

    assert code == 0
    assert {reply["outcome"] for reply in replies} == {"returned"}
    with library.engine.connect() as connection:
        assert len(connection.execute(select(RequestEvent.id)).all()) == 30


def test_event_cannot_be_revoked(library, deployment, raw_station, wait_until_received, celery_app):
    """A worker refuses to revoke an event that waits for a process: the event gets its reply like the others."""
    barcodes = [library.request()[1][0] for _ in range(10)]

    with deployment.worker("returns", "--concurrency", "2") as process:
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        with suspended(children_of(process)):
            sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes[:2]]
            wait_until_received(sent)  # one for each process; all later events gather
            sent += [raw_station.send(library.scan(barcode)) for barcode in barcodes[2:]]
            wait_until_received(sent)
            [refusal] = celery_app.control.revoke(sent[-1], reply=True, timeout=10, limit=1)
        replies = raw_station.replies_to(*sent)

    assert "not permitted" in str(refusal)
    assert {reply["outcome"] for reply in replies} == {"returned"}


def test_inspect_lists_each_gathered_event_once(
    library, deployment, raw_station, sqlite_locked, wait_until_received, celery_app
):
    """`inspect reserved` lists gathered events and `inspect active` running ones. Afterwards both are empty."""
    barcodes = [library.request()[1][0] for _ in range(10)]

    with deployment.worker("returns"):
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        with sqlite_locked():
            sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes]
            wait_until_received(sent)
            inspect = celery_app.control.inspect(timeout=10, limit=1)
            listed = [*inspect.active().values(), *inspect.reserved().values()]
        raw_station.replies_to(*sent)
        wait_until(
            lambda: [*(inspect.active() or {}).values(), *(inspect.reserved() or {}).values()] == [[], []],
            "neither lists an event",
        )

    assert set(sent) <= {task["id"] for tasks in listed for task in tasks}


def test_batch_beyond_its_time_limit_is_processed_one_by_one(
    library, deployment, raw_station, sqlite_locked, celery_app
):
    """The process of a batch that hangs is killed at its time limit. Each event of the batch is processed once."""
    barcodes = library.loaned_items(120)

    with deployment.celery_worker("-c", "1", BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS="30") as process:
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        # The process removes the outbox row of a reply after the reply, and would wait for the lock with that.
        wait_until(lambda: not rows_of(library, OutboxEntry), "the outbox is empty")
        [child] = children_of(process)
        sent: list[str] = []

        def active():
            found = celery_app.control.inspect(timeout=10, limit=1).active() or {}
            return {task["id"] for tasks in found.values() for task in tasks} & set(sent)

        def is_suspended_with_a_batch():
            if len(active()) < 2:
                return False
            os.kill(child, signal.SIGSTOP)
            if len(active()) < 2:  # the batch ended meanwhile
                os.kill(child, signal.SIGCONT)
                return False
            return True

        with sqlite_locked():  # a transaction waits 10 s for the lock; then its process gets the next batch
            sent += [raw_station.send(library.scan(barcode)) for barcode in barcodes]
            wait_until(is_suspended_with_a_batch)
            wait_until(lambda: child not in children_of(process), "the time limit of 15 s ends the process")
        replies = raw_station.replies_to(*sent)

    assert {reply["outcome"] for reply in replies} == {"returned"}
    with library.engine.connect() as connection:
        assert len(connection.execute(select(RequestEvent.id)).all()) == 120


def test_cold_shutdown_loses_no_event(library, deployment, raw_station, sqlite_locked, wait_until_received):
    """QUIT while events gather: all unanswered events are requeued, and the next worker processes each once."""
    barcodes = [library.request()[1][0] for _ in range(30)]

    process = deployment.start_worker("returns")
    raw_station.replies_to(raw_station.send(library.scan("warm-up")))
    with sqlite_locked():
        sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes]
        wait_until_received(sent)
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
    with deployment.worker("returns"):
        replies = raw_station.replies_to(*sent)

    assert {reply["outcome"] for reply in replies} == {"returned"}
    with library.engine.connect() as connection:
        assert len(connection.execute(select(RequestEvent.id)).all()) == 30


@pytest.mark.parametrize("options", [("-P", "solo"), ("--autoscale", "2,1"), ("-c", "1")], ids=" ".join)
def test_other_pools_process_each_scan_once(library, deployment, raw_station, options):
    """Solo, autoscaled, or one process: every scan gets a reply, and each item is returned once."""
    barcodes = [library.request()[1][0] for _ in range(30)]
    sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes * 2]
    with deployment.celery_worker(*options):
        replies = raw_station.replies_to(*sent)

    outcomes = [reply["outcome"] for reply in replies]
    assert (outcomes.count("returned"), outcomes.count("already_returned")) == (30, 30)
    with library.engine.connect() as connection:
        assert len(connection.execute(select(RequestEvent.id)).all()) == 30


def test_log_line_of_a_batch_carries_the_ids_of_its_event(
    library, deployment, raw_station, sqlite_locked, wait_until_received
):
    """The log line of each Return in a batch carries its own event, station, request and task."""
    requests = [library.request() for _ in range(10)]

    with deployment.worker("returns", BOOKDROP_LOG_FORMAT="json"):
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        with sqlite_locked():
            sent = [raw_station.send(library.scan(barcode)) for _, [barcode] in requests]
            wait_until_received(sent)
        raw_station.replies_to(*sent)

    lines = [json.loads(line) for line in deployment.log("returns").splitlines() if line.startswith("{")]
    applied = {line["event_id"]: line for line in lines if line["event"] == "return_applied"}
    for event_id, (external_id, _) in zip(sent, requests, strict=True):
        assert applied[event_id].items() >= {
            "request": external_id, "task": "returns.process_scan", "task_id": event_id, "station": "main-desk-1"
        }.items()  # fmt: skip
