# SPDX-License-Identifier: Apache-2.0
"""Checks of waiting messages: outbox, quarantine, print jobs in trouble, dead letters, unread replies."""

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta

from kombu import Connection
from sqlalchemy import Connection as Database
from sqlalchemy import func, select

from schemas import topology
from schemas.models import OutboxEntry, PrintJob, QuarantinedMessage, RetentionProgress
from schemas.print_jobs import PrintState
from tasks.quarantine.store import OPEN_STATES
from tasks.webhooks.queries import endpoints
from workers.doctor.finding import Finding
from workers.metrics.broker import lengths

LATE = timedelta(seconds=30)
"""An older outbox row is overdue: the broker rejects messages, or no housekeeping worker runs."""
RETENTION_LATE = timedelta(hours=6)
"""Housekeeping erases expired content each minute. The first run on a large database may take hours."""
MAX_UNREAD_REPLIES = 1_000
WEBHOOK_LATE = timedelta(hours=1)
"""Age of a webhook after which its endpoint needs attention; an outage of some minutes needs none."""


def in_database(database: Database, now: datetime) -> Iterator[Finding]:
    """Check the tables."""
    number, oldest = database.execute(select(func.count(), func.min(OutboxEntry.created_at))).one()
    late = oldest is not None and now - oldest > LATE
    yield Finding(
        "outbox",
        ok=not late,
        message=f"{number} messages to publish" + (f", the oldest since {_duration(now - oldest)}" if oldest else ""),
        advice="Check that the broker accepts messages and that a housekeeping worker runs." if late else "",
    )
    quarantined = database.execute(
        select(func.count()).select_from(QuarantinedMessage).where(QuarantinedMessage.state.in_(OPEN_STATES))
    ).scalar_one()
    yield Finding(
        "quarantine",
        ok=True,
        message=f"{quarantined} messages",
        advice="They failed validation or could not be processed. Run 'bookdrop quarantine list'."
        if quarantined
        else "",
    )
    yield _retention(database, now)
    yield from _webhooks(database, now)
    states = dict(
        database.execute(
            select(PrintJob.state, func.count())
            .where(
                PrintJob.state.in_((PrintState.HELD, PrintState.FAILED_SAFE, PrintState.UNKNOWN)),
                PrintJob.voided_at.is_(None),
            )
            .group_by(PrintJob.state)
        ).all()
    )
    yield Finding(
        "slips",
        ok=True,
        message=", ".join(f"{number} {state.value}" for state, number in sorted(states.items())) or "none in trouble",
        advice="Run 'bookdrop prints list --failed --held --unknown'." if states else "",
    )


def _retention(database: Database, now: datetime) -> Finding:
    rows = database.execute(select(RetentionProgress.kind, RetentionProgress.complete_at).order_by("kind")).all()
    late = [
        f"{row.kind} since {_duration(now - row.complete_at)}" for row in rows if now - row.complete_at > RETENTION_LATE
    ]
    return Finding(
        "retention",
        ok=not late,
        message=f"expired content is not erased: {', '.join(late)}" if late else "expired content is erased",
        advice="Check that a housekeeping worker runs, and its log for the task privacy.purge_links." if late else "",
    )


def _webhooks(database: Database, now: datetime) -> Iterator[Finding]:
    """One finding for each endpoint; none without an endpoint."""
    for row in endpoints(database, now):
        name, number = f"endpoint {row['endpoint']} at {row['url']}", row["endpoint"]
        oldest = row["oldest_pending_at"]
        is_late = oldest is not None and now - oldest > WEBHOOK_LATE and row["disabled_because"] != "operator"
        message = f"{name}: {row['pending']} messages pending, {row['failed']} failed"
        if oldest is not None:
            message += f", the oldest pending since {_duration(now - oldest)}"
        if row["trouble"]:
            message += f"; it {row['trouble']}"
        if row["disabled_because"] == "gone":
            advice = (
                f"It responded with 410 Gone and is disabled. If it is used again: 'bookdrop webhooks enable {number}'."
            )
        elif is_late:
            advice = (
                f"Correct the cause, then run 'bookdrop webhooks test {number}'. The messages follow automatically."
            )
        elif row["failed"]:
            advice = f"Run 'bookdrop webhooks retry {number}' to send failed messages again."
        else:
            advice = ""
        yield Finding("webhooks", ok=not is_late and row["disabled_because"] != "gone", message=message, advice=advice)


def at_broker(connection: Connection, stations: Collection[str]) -> Iterator[Finding]:
    """Check the dead-letter queue and the reply queues."""
    dead = lengths(connection, [topology.DEAD_LETTER_QUEUE])[topology.DEAD_LETTER_QUEUE]
    yield Finding(
        "broker",
        ok=True,
        message=f"{dead} dead letters",
        advice="Housekeeping moves them into the quarantine. If their number stays, no housekeeping worker runs."
        if dead
        else "",
    )
    unread = lengths(connection, [topology.reply_queue(station) for station in stations])
    for queue, number in unread.items():
        if number > MAX_UNREAD_REPLIES:
            station = queue.removeprefix(topology.REPLY_QUEUE_PREFIX)
            yield Finding(
                "broker",
                ok=True,
                message=f"{number} replies wait in {queue}",
                advice=f"Station {station} does not read them. Start it, or they expire after a week.",
            )


def _duration(span: timedelta) -> str:
    return str(timedelta(seconds=int(span.total_seconds())))
