# SPDX-License-Identifier: Apache-2.0
"""Metrics of the database. Each query uses an index, or reads a table that stays small."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, case, func, select

from schemas.database import READ_ONLY
from schemas.models import (
    Branch,
    MetricCell,
    OutboxEntry,
    PrintJob,
    QuarantinedMessage,
    RetentionProgress,
    Station,
    StationHeartbeat,
    UndoPatronLink,
    WebhookDelivery,
    WebhookEndpoint,
)
from schemas.print_jobs import IN_HAND, WAITING, PrintState
from schemas.reasons import DeadLetterReason
from tasks.metrics.definitions import QUARANTINED, WORKER_METRICS, MetricDefinition
from tasks.printing.queries import printers
from tasks.privacy.policy import ContentKind
from tasks.quarantine.store import OPEN_STATES as UNDECIDED

OPEN: Final = (*sorted(WAITING | IN_HAND), PrintState.ACCEPTED, PrintState.UNKNOWN)
"""States with few print jobs, however many the table has."""
LOOK_BACK: Final = timedelta(days=30)
"""Maximum age of slips counted as sent and not scanned at packing: a library may never scan there."""
SEEN_WITHIN: Final = timedelta(hours=1)
"""Period within which a station must have sent an event to count as seen."""


@dataclass(frozen=True)
class Sample:
    """One value under a metric's name."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class HistogramSample:
    """One histogram: the count of each bucket in the order of the bounds, then of the bucket above all bounds."""

    metric: MetricDefinition
    label: str
    counts: tuple[int, ...]
    seconds: float
    """Sum of all durations."""


def read(engine: Engine, now: datetime) -> list[Sample | HistogramSample]:
    """Read all samples, in one read-only transaction."""
    with engine.connect().execution_options(**READ_ONLY) as connection:
        return [
            *_worker_metrics(connection),
            *_outbox(connection, now),
            *_slips(connection, now),
            *_printers(connection, now),
            *_quarantine(connection),
            *_quarantine_size(connection),
            *_links(connection, now),
            *_retention(connection, now),
            *_stations(connection, now),
            *_webhooks(connection, now),
        ]


def _worker_metrics(connection: Connection) -> Iterator[Sample | HistogramSample]:
    rows = connection.execute(
        select(MetricCell.metric, MetricCell.label, MetricCell.bucket, MetricCell.number, MetricCell.microseconds)
    )
    stored = {(row.metric, row.label, row.bucket): (row.number, row.microseconds / 1e6) for row in rows}
    for metric in WORKER_METRICS:
        for label in metric.values:
            cells = [stored.get((metric.name, label, bucket), (0, 0.0)) for bucket in range(len(metric.bounds) + 1)]
            if metric.bounds:
                yield HistogramSample(
                    metric, label, tuple(number for number, _ in cells), sum(seconds for _, seconds in cells)
                )
            else:
                yield Sample(metric.name, cells[0][0], (label,) if metric.label else ())


def _outbox(connection: Connection, now: datetime) -> Iterator[Sample]:
    number, oldest = connection.execute(select(func.count(), func.min(OutboxEntry.created_at))).one()
    yield Sample("bookdrop_outbox_messages", number)
    yield Sample("bookdrop_outbox_oldest_seconds", _age(oldest, now))


def _slips(connection: Connection, now: datetime) -> Iterator[Sample]:
    counted = select(PrintJob.state, func.count().label("number"), func.min(PrintJob.state_since).label("since"))
    recent = PrintJob.id >= _first_id(now - LOOK_BACK)
    found: dict[PrintState, Any] = {}
    for query in (
        counted.where(PrintJob.state.in_(OPEN), PrintJob.voided_at.is_(None)),
        counted.where(PrintJob.state == PrintState.DONE, PrintJob.voided_at.is_(None), recent),
    ):
        found.update({row.state: row for row in connection.execute(query.group_by(PrintJob.state))})
    for state in (*OPEN, PrintState.DONE):
        row = found.get(state)
        yield Sample("bookdrop_slips", row.number if row else 0, (state.value,))
        yield Sample("bookdrop_slips_oldest_seconds", _age(row.since if row else None, now), (state.value,))
    unseen = connection.execute(
        select(func.min(PrintJob.state_since)).where(
            PrintJob.state.in_((PrintState.ACCEPTED, PrintState.DONE)), PrintJob.voided_at.is_(None), recent
        )
    ).scalar_one()
    yield Sample("bookdrop_slip_unconfirmed_oldest_seconds", _age(unseen, now))


def _printers(connection: Connection, now: datetime) -> Iterator[Sample]:
    for printer in printers(connection):
        labels = (printer["branch"], printer["printer"])
        oldest = printer["oldest_waits_since"]
        yield Sample("bookdrop_printer_on_hold", int(printer["on_hold"]), labels)
        yield Sample("bookdrop_printer_failures", printer["failures"], labels)
        yield Sample("bookdrop_printer_waiting_slips", printer["waiting"], labels)
        yield Sample(
            "bookdrop_printer_oldest_wait_seconds",
            _age(datetime.fromisoformat(oldest) if oldest else None, now),
            labels,
        )


def _quarantine(connection: Connection) -> Iterator[Sample]:
    rows = connection.execute(
        select(QuarantinedMessage.reason, func.count())
        .where(QuarantinedMessage.state.in_(UNDECIDED))
        .group_by(QuarantinedMessage.reason)
    )
    numbers = dict.fromkeys((*QUARANTINED.values, *DeadLetterReason), 0)
    for reason, number in rows:
        numbers[reason if reason in numbers else "other"] += number
    for reason, number in numbers.items():
        yield Sample("bookdrop_quarantine_messages", number, (reason,))


def _quarantine_size(connection: Connection) -> Iterator[Sample]:
    number, size = connection.execute(
        select(func.count(), func.coalesce(func.sum(QuarantinedMessage.size), 0)).where(
            QuarantinedMessage.erased_at.is_(None)
        )
    ).one()
    yield Sample("bookdrop_quarantine_content_messages", number)
    yield Sample("bookdrop_quarantine_content_bytes", size or 0)


def _links(connection: Connection, now: datetime) -> Iterator[Sample]:
    oldest = connection.execute(select(func.min(UndoPatronLink.purge_after))).scalar_one()
    yield Sample("bookdrop_links_overdue_seconds", _age(oldest, now))


def _retention(connection: Connection, now: datetime) -> Iterator[Sample]:
    rows = connection.execute(select(RetentionProgress.kind, RetentionProgress.complete_at))
    stored = {row.kind: row.complete_at for row in rows}
    for kind in ContentKind:
        yield Sample("bookdrop_retention_age_seconds", _age(stored.get(kind.value), now), (kind.value,))


def _stations(connection: Connection, now: datetime) -> Iterator[Sample]:
    rows = connection.execute(
        select(
            Branch.code,
            Station.code.label("station"),
            StationHeartbeat.at,
            StationHeartbeat.held,
            StationHeartbeat.held_since,
        )
        .join(Branch, Branch.id == Station.branch_id)
        .outerjoin(StationHeartbeat, StationHeartbeat.station == Station.code)
        .where(Station.active)
    ).all()
    for branch in sorted({row.code for row in rows}):
        of_branch = [row for row in rows if row.code == branch]
        held_since = [row.held_since for row in of_branch if row.held and row.held_since]
        seen = sum(1 for row in of_branch if row.at and row.at > now - SEEN_WITHIN)
        yield Sample("bookdrop_stations", len(of_branch), (branch,))
        yield Sample("bookdrop_stations_seen", seen, (branch,))
        yield Sample("bookdrop_journal_held_events", sum(row.held or 0 for row in of_branch), (branch,))
        yield Sample("bookdrop_journal_oldest_held_seconds", _age(min(held_since, default=None), now), (branch,))


def _webhooks(connection: Connection, now: datetime) -> Iterator[Sample]:
    """Messages to an endpoint that an operator disabled wait on purpose, and have no age."""
    pending, oldest = connection.execute(
        select(
            func.count(),
            func.min(
                case((func.coalesce(WebhookEndpoint.disabled_because, "") != "operator", WebhookDelivery.created_at))
            ),
        )
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(WebhookDelivery.state == "pending")
    ).one()
    failed = connection.execute(
        select(func.count()).select_from(WebhookDelivery).where(WebhookDelivery.state == "failed")
    ).scalar_one()
    yield Sample("bookdrop_webhooks_pending", pending)
    yield Sample("bookdrop_webhooks_failed", failed)
    yield Sample("bookdrop_webhooks_oldest_pending_seconds", _age(oldest, now))


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def _first_id(moment: datetime) -> UUID:
    """The smallest UUIDv7 of a time. Ids of print jobs are ordered by time, so the primary key serves as its index."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
