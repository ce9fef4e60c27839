# SPDX-License-Identifier: Apache-2.0
"""Metrics that a worker process records in memory, and their upsert into the database.

Recording costs a scan some microseconds and no SQL statement. A killed process loses the records of its last seconds;
no record is counted twice.

Why the sums are in SQL, and not in prometheus_client's multiprocess mode (read in version 0.26):

- That mode keeps one memory-mapped file per process and metric type in the directory `PROMETHEUS_MULTIPROC_DIR`. The
  directory must be emptied before each start, so counters restart at zero with each restart of a worker. A new container
  has an empty directory. Prometheus handles the reset, but loses the increments since its last scrape.
- The directory is local to a host. Workers on several hosts need one scrape target each, and each worker needs a port.
- A file is named after the process id. Containers that share a volume have the same ids, and would write to one file.
- Files of ended processes stay: `mark_process_dead` removes files of live gauges only.
- The number of events that a station holds is a gauge. The mode `mostrecent` compares the times at which processes set
  it. Here the station's own timestamp decides, because a slow worker may process an older report last.

An exporter in each worker process has the same resets, and needs a port for each process of a pool. SQL has one cost
that multiprocess mode does not have: memory-mapped files survive a killed process, the records of its last 5 seconds
here do not. A worker that ends normally writes all of them.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, or_
from sqlalchemy.dialects import postgresql, sqlite

from schemas.models import MetricCell, StationHeartbeat, table
from tasks.metrics.definitions import MetricDefinition

OLDER_REPORT_ACCEPTED_AFTER: Final = timedelta(hours=1)
"""After this long, an older station timestamp may replace a newer one."""


@dataclass(frozen=True)
class ReportedHeartbeat:
    """A message from a station, and the number of events that the station still held."""

    at: datetime
    """Time of receipt, by the worker's clock."""
    held: int
    held_since: datetime | None
    reported_at: datetime
    """Time of the report by the station's clock; by the worker's clock if the station sent no report."""


Cells = dict[tuple[str, str, int], list[float]]
"""Metric, label and bucket to the number of records and the sum of their durations in seconds."""


@dataclass
class MetricsBatch:
    """Records that are not in the database yet."""

    cells: Cells = field(default_factory=dict)
    heartbeats: dict[str, ReportedHeartbeat] = field(default_factory=dict)
    """Station code to its latest report."""

    def __bool__(self) -> bool:
        return bool(self.cells or self.heartbeats)


class MetricsRecorder:
    """The metrics of one process. Thread-safe. Calls `on_first_record` once, before the first record."""

    def __init__(self, on_first_record: Callable[[], None] = lambda: None) -> None:
        self._on_first_record: Callable[[], None] | None = on_first_record
        self._batch = MetricsBatch()
        self._lock = threading.Lock()

    def observe(self, metric: MetricDefinition, seconds: float, label: str = "") -> None:
        """Add a duration to its bucket. A negative duration, from a clock that is ahead, counts as zero."""
        seconds = max(seconds, 0.0)
        self._add(metric, label, bisect_left(metric.bounds, seconds), seconds)

    def count(self, metric: MetricDefinition, label: str = "", number: int = 1) -> None:
        """Increment a counter by `number`."""
        if number:
            self._add(metric, label, 0, 0.0, number)

    def record_heartbeat(self, station: str, heartbeat: ReportedHeartbeat) -> None:
        """Store the report of `station`, unless a report with a later station timestamp is stored."""
        self._start()
        with self._lock:
            stored = self._batch.heartbeats.get(station)
            if stored is None or stored.reported_at <= heartbeat.reported_at:
                self._batch.heartbeats[station] = heartbeat

    def drain(self) -> MetricsBatch:
        """Return all records and clear them."""
        with self._lock:
            batch, self._batch = self._batch, MetricsBatch()
        return batch

    def restore(self, batch: MetricsBatch) -> None:
        """Add a drained batch that could not be written back to the records."""
        with self._lock:
            for key, (number, seconds) in batch.cells.items():
                cell = self._batch.cells.setdefault(key, [0, 0.0])
                cell[0] += number
                cell[1] += seconds
            self._batch.heartbeats = {**batch.heartbeats, **self._batch.heartbeats}

    def _add(self, metric: MetricDefinition, label: str, bucket: int, seconds: float, number: int = 1) -> None:
        self._start()
        key = (metric.name, label if label in metric.values else "other", bucket)
        with self._lock:
            cell = self._batch.cells.get(key)
            if cell is None:
                self._batch.cells[key] = [number, seconds]
            else:
                cell[0] += number
                cell[1] += seconds

    def _start(self) -> None:
        if self._on_first_record is not None:
            on_first_record, self._on_first_record = self._on_first_record, None
            on_first_record()


def upsert(connection: Connection, batch: MetricsBatch) -> None:
    """Add `batch` to the sums in the database, in the transaction of `connection`.

    Rows are written in the order of their keys, so that two concurrent processes do not deadlock.
    """
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    if batch.cells:
        insertion = insert(tallies := table(MetricCell))
        new = insertion.excluded
        connection.execute(
            insertion.on_conflict_do_update(
                index_elements=["metric", "label", "bucket"],
                set_={
                    "number": tallies.c.number + new.number,
                    "microseconds": tallies.c.microseconds + new.microseconds,
                },
            ),
            [
                {
                    "metric": metric,
                    "label": label,
                    "bucket": bucket,
                    "number": int(number),
                    "microseconds": round(seconds * 1e6),
                }
                for (metric, label, bucket), (number, seconds) in sorted(batch.cells.items())
            ],
        )
    if batch.heartbeats:
        insertion = insert(sightings := table(StationHeartbeat))
        new = insertion.excluded
        is_later = or_(sightings.c.said_at.is_(None), sightings.c.said_at <= new.said_at)
        connection.execute(
            insertion.on_conflict_do_update(
                index_elements=["station"],
                set_={name: new[name] for name in ("at", "held", "held_since", "said_at")},
                # Of two concurrent processes, the slower one may hold the station's earlier report. After a station's
                # clock was set back, its reports are accepted again within an hour.
                where=or_(is_later, sightings.c.at < bindparam("long_ago")),
            ),
            [
                {
                    "station": station,
                    "at": heartbeat.at,
                    "held": heartbeat.held,
                    "held_since": heartbeat.held_since,
                    "said_at": heartbeat.reported_at,
                    "long_ago": heartbeat.at - OLDER_REPORT_ACCEPTED_AFTER,
                }
                for station, heartbeat in sorted(batch.heartbeats.items())
            ],
        )
