# SPDX-License-Identifier: Apache-2.0
"""What workers count: noted in memory, added up in the database, read again for Prometheus."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select, update
from sqlalchemy.orm import sessionmaker

from schemas import station_status
from schemas.models import PrintJob, QuarantinedMessage, StationHeartbeat
from schemas.print_jobs import PrintState
from tasks.metrics.definitions import DUPLICATES, REPLIES, SCAN_TO_REPLY, WORKER_METRICS
from tasks.metrics.recorder import MetricsRecorder, ReportedHeartbeat, upsert
from workers.metrics import database
from workers.metrics.database import HistogramSample, Sample
from workers.metrics.definitions import METRICS
from workers.metrics.flusher import flush

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


def told(engine, name, *labels, now=NOW):
    """What the exporter would tell."""
    found = [
        each for each in database.read(engine, now)
        if (isinstance(each, Sample) and (each.name, each.labels) == (name, labels))
        or (isinstance(each, HistogramSample) and (each.metric.name, each.label) == (name, *labels))
    ]  # fmt: skip
    assert len(found) == 1
    return found[0].value if isinstance(found[0], Sample) else found[0]


def test_notes_of_two_processes_are_added_up(engine):
    """Counts and durations of several processes, written one after the other, are their sum, in the right buckets."""
    for seconds in (0.04, 0.3):
        tally = MetricsRecorder()
        tally.count(REPLIES, "returned")
        tally.observe(SCAN_TO_REPLY, seconds, "once")
        with engine.begin() as connection:
            upsert(connection, tally.drain())

    histogram = told(engine, "bookdrop_scan_to_answer_seconds", "once")
    assert told(engine, "bookdrop_answers_total", "returned") == 2
    assert histogram.counts == (1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert histogram.seconds == pytest.approx(0.34)


@given(st.floats(-1e6, 1e6), st.sampled_from([each for each in WORKER_METRICS if each.bounds]))
def test_a_duration_is_in_the_first_bucket_that_holds_it(seconds, metric):
    """Prometheus' rule: a bucket holds what is at most its bound. A clock that is ahead makes no negative duration."""
    tally = MetricsRecorder()

    tally.observe(metric, seconds)

    [(_, _, bucket)], [(number, total)] = zip(*tally.drain().cells.items(), strict=True)
    kept = max(seconds, 0.0)
    assert (number, total) == (1, kept)
    assert all(bound < kept for bound in metric.bounds[:bucket])
    assert bucket == len(metric.bounds) or kept <= metric.bounds[bucket]


def test_labels_are_bounded():
    """A label's value that is not foreseen is counted as `other`: what comes from outside makes no new series."""
    tally = MetricsRecorder()

    tally.count(REPLIES, "made-up-by-somebody")

    assert [label for _, label, _ in tally.drain().cells] == ["other"]


def test_what_cannot_be_written_is_kept(engine, library):
    """With the tables out of reach the notes wait, and are written with the next ones, once."""
    tally, sessions = MetricsRecorder(), sessionmaker(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE tallies RENAME TO gone")
    tally.count(DUPLICATES)
    tally.record_heartbeat("main-desk-1", ReportedHeartbeat(NOW, 3, None, NOW))
    flush(sessions, tally)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO tallies")
    tally.count(DUPLICATES)

    flush(sessions, tally)
    flush(sessions, tally)

    assert told(engine, "bookdrop_duplicates_total") == 2
    assert told(engine, "bookdrop_journal_held_events", "main") == 3


def test_the_last_word_of_a_desk_counts(engine, library):
    """Of what two workers heard of a desk its later word stands, whichever worker was slower, and which is written first."""
    spoke = NOW + timedelta(minutes=8)  # by a clock that is ahead
    for heard, said, held in ((4, 5, 7), (5, 3, 40)):
        tally = MetricsRecorder()
        said_at = spoke + timedelta(seconds=said)
        tally.record_heartbeat(
            "main-desk-1", ReportedHeartbeat(NOW + timedelta(seconds=heard), held, NOW - timedelta(hours=1), said_at)
        )
        with engine.begin() as connection:
            upsert(connection, tally.drain())

    with engine.connect() as connection:
        assert connection.execute(select(StationHeartbeat.held)).scalars().all() == [7]
    assert told(engine, "bookdrop_journal_held_events", "main") == 7
    assert told(engine, "bookdrop_journal_oldest_held_seconds", "main") == 3600


def test_a_word_that_is_heard_late_changes_nothing():
    """Of one process too: a batch that was tried again comes after the one that the desk sent later."""
    tally = MetricsRecorder()
    for said, held in ((5, 0), (3, 40)):
        tally.record_heartbeat("main-desk-1", ReportedHeartbeat(NOW, held, None, NOW + timedelta(seconds=said)))

    assert tally.drain().heartbeats["main-desk-1"].held == 0


@pytest.mark.parametrize(("minutes", "held"), [(59, 7), (61, 2)])
def test_a_desk_whose_clock_was_set_back_is_believed_in_an_hour(minutes, held, engine, library):
    """Its words are all earlier than its last one: they count when nothing else was heard of it for so long."""
    for at, said_at, number in ((NOW, NOW + timedelta(days=1), 7), (NOW + timedelta(minutes=minutes), NOW, 2)):
        tally = MetricsRecorder()
        tally.record_heartbeat("main-desk-1", ReportedHeartbeat(at, number, NOW, said_at))
        with engine.begin() as connection:
            upsert(connection, tally.drain())

    with engine.connect() as connection:
        assert connection.execute(select(StationHeartbeat.held)).scalars().all() == [held]


def test_slips_are_told_by_state_and_age(engine, wanted, here):
    """Open slips count however old they are; those that were sent and not seen at packing for 30 days."""
    for state in (PrintState.UNKNOWN, PrintState.DONE, PrintState.DONE):
        job_id = wanted()
        with engine.begin() as connection:
            since = here.now() - timedelta(minutes=10)
            connection.execute(update(PrintJob).where(PrintJob.id == job_id).values(state=state, state_since=since))
    now = here.now()

    assert told(engine, "bookdrop_slips", "unknown", now=now) == 1
    assert told(engine, "bookdrop_slips", "done", now=now) == 2
    assert told(engine, "bookdrop_slips", "held", now=now) == 0
    assert told(engine, "bookdrop_slips_oldest_seconds", "unknown", now=now) == pytest.approx(600, abs=1)
    assert told(engine, "bookdrop_slip_unconfirmed_oldest_seconds", now=now) == pytest.approx(600, abs=1)
    later = now + timedelta(days=31)
    assert told(engine, "bookdrop_slips", "unknown", now=later) == 1
    assert told(engine, "bookdrop_slips", "done", now=later) == 0


def test_a_decided_message_is_not_in_quarantine_any_more(engine):
    """What was dropped or settled is no longer told; what nobody decided about is, under its reason."""
    common = {"received_at": NOW, "queue": "returns", "detail": "", "body": "{}"}
    with engine.begin() as connection:
        for reason, state in (("malformed", "kept"), ("malformed", "dropped"), ("made-up", "kept")):
            connection.execute(insert(QuarantinedMessage).values(**common, reason=reason, state=state))

    assert told(engine, "bookdrop_quarantine_messages", "malformed") == 1
    assert told(engine, "bookdrop_quarantine_messages", "other") == 1


def test_every_metric_of_the_database_is_told_and_no_other(engine, library):
    """The list of metrics and what is read for them are the same, labels included."""
    labels = {each.name: len(each.labels) for each in METRICS if each.source == "database"}

    seen = {}
    for each in database.read(engine, NOW):
        if isinstance(each, HistogramSample):
            seen[each.metric.name] = int(each.metric.label is not None)
        else:
            seen[each.name] = len(each.labels)

    assert seen == labels


def test_a_desks_word_is_read_as_it_was_written():
    """What a desk says beside an event comes through; nonsense is no word, and no error."""
    word = station_status.read(station_status.to_header(NOW, 2, 5, NOW - timedelta(hours=1)))

    assert word is not None
    assert (word.sent_at, word.attempt, word.held, word.held_since) == (NOW, 2, 5, NOW - timedelta(hours=1))
    nonsense: Any
    for nonsense in (None, "x", 7, [], {}, {"sent_at": "noon"}, {"sent_at": NOW.isoformat(), "held": -1}):
        assert station_status.read(nonsense) is None
