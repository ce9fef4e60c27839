# SPDX-License-Identifier: Apache-2.0
"""What a worker process counts and times while it works: kept in memory, added to the database now and then.

A scan pays a few microseconds, and no statement. When a process is killed, what it noted in the last seconds is lost;
nothing is counted twice.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, or_
from sqlalchemy.dialects import postgresql, sqlite

from schemas.models import MetricCell, StationHeartbeat, table
from tasks.metrics.definitions import MetricDefinition

FORGOTTEN_AFTER: Final = timedelta(hours=1)
"""For so long what a desk said last stands against what comes with an earlier time."""


@dataclass(frozen=True)
class ReportedHeartbeat:
    """A desk that was heard of, and what it still had."""

    at: datetime
    """When it was heard, by our clock."""
    held: int
    held_since: datetime | None
    said_at: datetime
    """When it said so, by its own clock; by ours when it says nothing of itself."""


Cells = dict[tuple[str, str, int], list[float]]
"""By metric, label and bucket: how many, and the seconds of all of them."""


@dataclass
class MetricsBatch:
    """What was noted and is not in the database yet."""

    cells: Cells = field(default_factory=dict)
    desks: dict[str, ReportedHeartbeat] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.cells or self.desks)


class MetricsRecorder:
    """The notes of one process. Thread-safe. `begin` is called before the first note."""

    def __init__(self, begin: Callable[[], None] = lambda: None) -> None:
        self._begin: Callable[[], None] | None = begin
        self._notes = MetricsBatch()
        self._lock = threading.Lock()

    def observe(self, metric: MetricDefinition, seconds: float, label: str = "") -> None:
        """Put a duration into its bucket; one below zero, of a clock that is ahead, counts as zero."""
        seconds = max(seconds, 0.0)
        self._add(metric, label, bisect_left(metric.bounds, seconds), seconds)

    def count(self, metric: MetricDefinition, label: str = "") -> None:
        """Count one more."""
        self._add(metric, label, 0, 0.0)

    def record_heartbeat(self, desk: str, seen: ReportedHeartbeat) -> None:
        """Note that a desk was heard of; what it said earlier, and is heard late, changes nothing."""
        self._start()
        with self._lock:
            known = self._notes.desks.get(desk)
            if known is None or known.said_at <= seen.said_at:
                self._notes.desks[desk] = seen

    def drain(self) -> MetricsBatch:
        """Give all notes, once."""
        with self._lock:
            notes, self._notes = self._notes, MetricsBatch()
        return notes

    def restore(self, notes: MetricsBatch) -> None:
        """Take back notes that could not be written."""
        with self._lock:
            for key, (number, seconds) in notes.cells.items():
                cell = self._notes.cells.setdefault(key, [0, 0.0])
                cell[0] += number
                cell[1] += seconds
            self._notes.desks = {**notes.desks, **self._notes.desks}

    def _add(self, metric: MetricDefinition, label: str, bucket: int, seconds: float) -> None:
        self._start()
        key = (metric.name, label if label in metric.values else "other", bucket)
        with self._lock:
            cell = self._notes.cells.get(key)
            if cell is None:
                self._notes.cells[key] = [1, seconds]
            else:
                cell[0] += 1
                cell[1] += seconds

    def _start(self) -> None:
        if self._begin is not None:
            begin, self._begin = self._begin, None
            begin()


def add(connection: Connection, notes: MetricsBatch) -> None:
    """Add notes to what the database has, in the transaction of `connection`.

    In the order of their keys, so that two processes at once do not wait for each other in a circle.
    """
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    if notes.cells:
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
                for (metric, label, bucket), (number, seconds) in sorted(notes.cells.items())
            ],
        )
    if notes.desks:
        insertion = insert(sightings := table(StationHeartbeat))
        new = insertion.excluded
        is_later = or_(sightings.c.said_at.is_(None), sightings.c.said_at <= new.said_at)
        connection.execute(
            insertion.on_conflict_do_update(
                index_elements=["station"],
                set_={name: new[name] for name in ("at", "held", "held_since", "said_at")},
                # Two processes work at once, and the one with the desk's earlier word may be the slower one. A desk
                # whose clock was set back is believed again in an hour.
                where=or_(is_later, sightings.c.at < bindparam("long_ago")),
            ),
            [
                {"station": desk, **asdict(seen), "long_ago": seen.at - FORGOTTEN_AFTER}
                for desk, seen in sorted(notes.desks.items())
            ],
        )
