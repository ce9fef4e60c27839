# SPDX-License-Identifier: Apache-2.0
"""The metrics that a worker process holds in memory."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tasks.metrics.definitions import REPLIES, WORKER_METRICS
from tasks.metrics.recorder import MetricsRecorder, ReportedHeartbeat

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
HISTOGRAMS = [metric for metric in WORKER_METRICS if metric.bounds]


def heartbeat(seconds: float, held: int) -> ReportedHeartbeat:
    """A report of `held` events, made that many seconds after `NOW`."""
    return ReportedHeartbeat(NOW, held, None, NOW + timedelta(seconds=seconds))


@given(st.floats(-1e6, 1e6), st.sampled_from(HISTOGRAMS))
def test_duration_is_counted_in_the_first_bucket_that_holds_it(seconds, metric):
    """A bucket holds durations up to its bound (Prometheus' rule); a negative duration counts as zero."""
    recorder = MetricsRecorder()

    recorder.observe(metric, seconds)

    [(_, _, bucket)], [(number, total)] = zip(*recorder.drain().cells.items(), strict=True)
    recorded = max(seconds, 0.0)
    assert (number, total) == (1, recorded)
    assert all(bound < recorded for bound in metric.bounds[:bucket])
    assert bucket == len(metric.bounds) or recorded <= metric.bounds[bucket]


def test_unknown_label_is_counted_as_other():
    """A label value from outside adds no time series."""
    recorder = MetricsRecorder()

    recorder.count(REPLIES, "not-an-outcome")

    assert [label for _, label, _ in recorder.drain().cells] == ["other"]


def test_earlier_heartbeat_recorded_later_changes_nothing():
    """A batch that is retried is recorded after the batch that the station sent later."""
    recorder = MetricsRecorder()

    for seconds, held in ((5, 0), (3, 40)):
        recorder.record_heartbeat("main-desk-1", heartbeat(seconds, held))

    assert recorder.drain().heartbeats["main-desk-1"].held == 0


def test_restored_batch_is_added_to_newer_records():
    """After a failed write the counts add up, and the newer heartbeat of a station replaces the restored one."""
    recorder = MetricsRecorder()
    recorder.count(REPLIES, "returned")
    recorder.record_heartbeat("main-desk-1", heartbeat(0, 40))
    recorder.record_heartbeat("main-desk-2", heartbeat(0, 2))
    batch = recorder.drain()
    recorder.count(REPLIES, "returned")
    recorder.record_heartbeat("main-desk-1", heartbeat(5, 0))

    recorder.restore(batch)

    total = recorder.drain()
    assert list(total.cells.values()) == [[2, 0.0]]
    assert {station: each.held for station, each in total.heartbeats.items()} == {"main-desk-1": 0, "main-desk-2": 2}
    assert not recorder.drain()
