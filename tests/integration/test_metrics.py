# SPDX-License-Identifier: Apache-2.0
"""The metrics for Prometheus compared with the events that took place: real workers, a real exporter."""

import shutil
import subprocess
import time
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from kombu import Connection, Exchange, Queue
from kombu.exceptions import OperationalError
from sqlalchemy import select, update

from schemas import station_status
from schemas.models import Printer, StationHeartbeat
from stations.client import StationClient
from tests.polling import wait_until
from tests.processes import Deployment
from tests.prometheus import exporter
from tests.requirements import skip_or_fail
from workers.bootstrap import utc_now
from workers.metrics import database
from workers.metrics.broker import lengths
from workers.metrics.database import HistogramSample

pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.databases("postgres")]

RABBITMQ = "amqp://guest:guest@127.0.0.1//"


def test_metrics_count_each_event_once(deployment, raw_station, library, engine):
    """Returns, a repeat, a duplicate, a refusal, a forged scan and slips of a printer on hold: each is counted, and no more."""
    barcodes = [library.request()[1][0] for _ in range(3)]
    with engine.begin() as connection:
        connection.execute(update(Printer).where(Printer.code == "north-slips").values(on_hold=True))
    began = time.time()
    with exporter(deployment) as prometheus:
        before = prometheus.scrape()
        with deployment.worker("returns"):
            first, *_ = sent = [raw_station.send(library.scan(barcode)) for barcode in barcodes]
            raw_station.replies_to(*sent)
            raw_station.replies_to(
                raw_station.send(library.scan(barcodes[0])), raw_station.send(library.scan("NO-SUCH-BARCODE"))
            )
            raw_station.replies_to(raw_station.send(library.scan(barcodes[0], key="not-the-key")))
            raw_station.send(raw_station.sent[first])
            raw_station.wait_until(lambda: len(raw_station.bodies) == 7)
            alive = prometheus.scrape_until(lambda scrape: scrape.value("bookdrop_workers", role="returns") == 1)
        took = time.time() - began
        waiting = prometheus.scrape()  # the worker wrote its last notes when it ended
        with deployment.worker("printing"):
            raw_station.wait_until(lambda: len(raw_station.notices()) == 3)
            prometheus.scrape_until(lambda scrape: scrape.value("bookdrop_queue_messages", queue="printing.main") == 0)
        after = prometheus.scrape()

    assert before.value("bookdrop_answers_total", outcome="returned") == 0
    assert alive.value("bookdrop_workers", role="printing") == 0
    reported = {
        outcome: waiting.value("bookdrop_answers_total", outcome=outcome)
        for outcome in ("returned", "already_returned", "refused")
    }
    assert reported == {"returned": 3, "already_returned": 1, "refused": 1}
    assert waiting.value("bookdrop_duplicates_total") == 1
    assert waiting.value("bookdrop_quarantined_total", reason="bad_signature") == 1
    assert waiting.value("bookdrop_quarantine_messages", reason="bad_signature") == 1
    assert waiting.value("bookdrop_scan_to_answer_seconds_count", sent="once") == 5
    assert waiting.value("bookdrop_scan_to_answer_seconds_bucket", sent="once", le="+Inf") == 5
    assert 0 < (waiting.value("bookdrop_scan_to_answer_seconds_sum", sent="once") or 0) < 5 * took
    assert waiting.value("bookdrop_queue_wait_seconds_count") == 6
    assert waiting.value("bookdrop_queue_messages", queue="printing.main") == 3
    assert waiting.value("bookdrop_slips", state="requested") == 3
    assert waiting.value("bookdrop_printer_waiting_slips", printer="main-slips") == 3
    assert waiting.value("bookdrop_printer_on_hold", printer="north-slips") == 1
    assert waiting.value("bookdrop_outbox_messages") == 0
    assert waiting.value("bookdrop_stations_seen", branch="main") == 1
    assert waiting.value("bookdrop_stations", branch="main") == 2
    assert after.value("bookdrop_queue_messages", queue="printing.main") == 0
    assert after.value("bookdrop_slips", state="done") == 3
    assert after.value("bookdrop_slip_tries_total", state="done") == 3
    assert after.value("bookdrop_return_to_slip_seconds_count") == 3
    assert (after.value("bookdrop_slip_unconfirmed_oldest_seconds") or 0) > 0
    lint(after.text)


def lint(text):
    """`promtool` reports no problem with names, units and help texts."""
    if shutil.which("promtool") is None:
        skip_or_fail("promtool (Debian package prometheus)")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_unreachable_source_is_reported_as_down(sqlite_url, tmp_path):
    """Without a broker the exporter reports the database's metrics, and that the broker is down."""
    with exporter(Deployment("redis://127.0.0.1:1/0", sqlite_url, tmp_path)) as prometheus:
        reported = prometheus.scrape()

    assert reported.value("bookdrop_source_up", source="database") == 1
    assert reported.value("bookdrop_source_up", source="broker") == 0
    assert reported.value("bookdrop_source_up", source="workers") == 0
    assert reported.value("bookdrop_outbox_messages") == 0
    assert reported.value("bookdrop_queue_messages", queue="returns") is None


def test_station_backlog_is_reported_until_it_is_sent(deployment, library, engine, monkeypatch):
    """The station reports how many held scans are left while it sends them, and none at the end."""
    held: list[int] = []

    def station(deployment, later=timedelta(0)):
        return StationClient(deployment.station_settings(), now=lambda: utc_now() + later)

    to_header = station_status.to_header

    def record(*status):
        held.append(status[2])
        return to_header(*status)

    monkeypatch.setattr(station_status, "to_header", record)
    with station(replace(deployment, broker_url="redis://127.0.0.1:1/0")) as disconnected:
        for number in range(120):
            disconnected.scan(f"NO-SUCH-{number}")
    held.clear()
    with deployment.worker("returns"), station(deployment, timedelta(minutes=1)) as connected:
        wait_until(lambda: not connected.journal.unanswered(), "every scan has its reply")

    reported = {
        (each.metric.name, each.label): each
        for each in database.read(engine, utc_now())
        if isinstance(each, HistogramSample)
    }
    with engine.connect() as connection:
        seen = connection.execute(
            select(StationHeartbeat.station, StationHeartbeat.held, StationHeartbeat.held_since)
        ).all()
    assert held[0] == 70
    assert seen == [("main-desk-1", 0, None)]
    assert sum(reported["bookdrop_scan_to_answer_seconds", "again"].counts) == 120
    assert sum(reported["bookdrop_scan_to_answer_seconds", "once"].counts) == 0


def test_queue_lengths_are_read_from_both_brokers(broker_url):
    """On Redis and RabbitMQ waiting messages are counted, and a queue that does not exist has length 0."""
    name = f"bookdrop-test-{uuid4()}"
    for url in (broker_url, RABBITMQ):
        with Connection(url, connect_timeout=3, transport_options={"confirm_publish": True}) as connection:
            try:
                connection.ensure_connection(max_retries=1)
            except OperationalError:
                skip_or_fail("RabbitMQ on port 5672")
            channel = connection.channel()
            queue = Queue(name, Exchange(""), routing_key=name, exclusive=True, durable=False)(channel)
            queue.declare()
            for _ in range(2):
                connection.Producer(channel).publish("x", exchange="", routing_key=name)
            reported = lengths(connection, [f"{name}-not-there", name])

        assert reported == {f"{name}-not-there": 0, name: 2}
