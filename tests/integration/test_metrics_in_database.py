# SPDX-License-Identifier: Apache-2.0
"""Metrics in the database: the sums that workers write, and the samples that the exporter reads."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.orm import sessionmaker

from schemas.models import PrintJob, QuarantinedMessage, StationHeartbeat
from schemas.print_jobs import PrintState
from tasks.metrics.definitions import DUPLICATES, REPLIES, SCAN_TO_REPLY
from tasks.metrics.recorder import MetricsRecorder, ReportedHeartbeat, upsert
from workers.metrics import database
from workers.metrics.database import HistogramSample, Sample
from workers.metrics.definitions import METRICS
from workers.metrics.flusher import flush

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


def sample(engine, name, *labels, now=NOW):
    """The one sample that the exporter reads for a metric with these labels."""
    samples = [
        each for each in database.read(engine, now)
        if (isinstance(each, Sample) and (each.name, each.labels) == (name, labels))
        or (isinstance(each, HistogramSample) and (each.metric.name, each.label) == (name, *labels))
    ]  # fmt: skip
    assert len(samples) == 1
    return samples[0].value if isinstance(samples[0], Sample) else samples[0]


def test_records_of_two_processes_are_added_up(engine):
    """Counts and durations that two processes write one after the other are their sums, in the right buckets."""
    for seconds in (0.04, 0.3):
        recorder = MetricsRecorder()
        recorder.count(REPLIES, "returned")
        recorder.observe(SCAN_TO_REPLY, seconds, "once")
        with engine.begin() as connection:
            upsert(connection, recorder.drain())

    histogram = sample(engine, "bookdrop_scan_to_answer_seconds", "once")
    assert sample(engine, "bookdrop_answers_total", "returned") == 2
    assert histogram.counts == (1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert histogram.seconds == pytest.approx(0.34)


def test_records_of_a_failed_write_are_written_once_later(engine, library):
    """While the table is unavailable the records stay in memory; the next write has them, and no write repeats them."""
    recorder, sessions = MetricsRecorder(), sessionmaker(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE tallies RENAME TO gone")
    recorder.count(DUPLICATES)
    recorder.record_heartbeat("main-desk-1", ReportedHeartbeat(NOW, 3, None, NOW))
    flush(sessions, recorder)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO tallies")
    recorder.count(DUPLICATES)

    flush(sessions, recorder)
    flush(sessions, recorder)

    assert sample(engine, "bookdrop_duplicates_total") == 2
    assert sample(engine, "bookdrop_journal_held_events", "main") == 3


def test_latest_report_of_a_station_wins_in_any_order(engine, library):
    """Of the reports that two workers write, the one with the later station time is stored."""
    station_clock = NOW + timedelta(minutes=8)
    for received, reported, held in ((4, 5, 7), (5, 3, 40)):
        recorder = MetricsRecorder()
        reported_at = station_clock + timedelta(seconds=reported)
        received_at, since = NOW + timedelta(seconds=received), NOW - timedelta(hours=1)
        recorder.record_heartbeat("main-desk-1", ReportedHeartbeat(received_at, held, since, reported_at))
        with engine.begin() as connection:
            upsert(connection, recorder.drain())

    with engine.connect() as connection:
        assert connection.execute(select(StationHeartbeat.held)).scalars().all() == [7]
    assert sample(engine, "bookdrop_journal_held_events", "main") == 7
    assert sample(engine, "bookdrop_journal_oldest_held_seconds", "main") == 3600


@pytest.mark.parametrize(("minutes", "held"), [(59, 7), (61, 2)])
def test_station_clock_set_back_is_accepted_after_an_hour(minutes, held, engine, library):
    """Reports with an earlier station time replace the stored one if that was received more than an hour before."""
    for at, reported_at, number in ((NOW, NOW + timedelta(days=1), 7), (NOW + timedelta(minutes=minutes), NOW, 2)):
        recorder = MetricsRecorder()
        recorder.record_heartbeat("main-desk-1", ReportedHeartbeat(at, number, NOW, reported_at))
        with engine.begin() as connection:
            upsert(connection, recorder.drain())

    with engine.connect() as connection:
        assert connection.execute(select(StationHeartbeat.held)).scalars().all() == [held]


def test_slips_are_counted_by_state_and_age(engine, create_print_job, context):
    """Open slips of any age count; sent slips without a confirmation at packing count for 30 days."""
    for state in (PrintState.UNKNOWN, PrintState.DONE, PrintState.DONE):
        job_id = create_print_job()
        with engine.begin() as connection:
            since = context.now() - timedelta(minutes=10)
            connection.execute(update(PrintJob).where(PrintJob.id == job_id).values(state=state, state_since=since))
    now = context.now()
    later = now + timedelta(days=31)

    assert sample(engine, "bookdrop_slips", "unknown", now=now) == 1
    assert sample(engine, "bookdrop_slips", "done", now=now) == 2
    assert sample(engine, "bookdrop_slips", "held", now=now) == 0
    assert sample(engine, "bookdrop_slips_oldest_seconds", "unknown", now=now) == pytest.approx(600, abs=1)
    assert sample(engine, "bookdrop_slip_unconfirmed_oldest_seconds", now=now) == pytest.approx(600, abs=1)
    assert sample(engine, "bookdrop_slips", "unknown", now=later) == 1
    assert sample(engine, "bookdrop_slips", "done", now=later) == 0


def test_quarantined_messages_are_counted_until_an_operator_decides(engine):
    """A dropped message no longer counts; an undecided one counts under its reason, or `other` for an unknown reason."""
    common = {"received_at": NOW, "queue": "returns", "detail": "", "body": "{}"}
    with engine.begin() as connection:
        for reason, state in (("malformed", "kept"), ("malformed", "dropped"), ("made-up", "kept")):
            connection.execute(insert(QuarantinedMessage).values(**common, reason=reason, state=state))

    assert sample(engine, "bookdrop_quarantine_messages", "malformed") == 1
    assert sample(engine, "bookdrop_quarantine_messages", "other") == 1


def test_database_metrics_are_the_declared_ones(engine, library):
    """The samples and the list of metrics have the same names and numbers of labels."""
    declared = {each.name: len(each.labels) for each in METRICS if each.source == "database"}

    read = {}
    for each in database.read(engine, NOW):
        if isinstance(each, HistogramSample):
            read[each.metric.name] = int(each.metric.label is not None)
        else:
            read[each.name] = len(each.labels)

    assert read == declared
