# SPDX-License-Identifier: Apache-2.0
"""What waits, and where: promises not published, messages set apart, dead letters, answers nobody reads."""

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta

from kombu import Connection
from sqlalchemy import Connection as Database
from sqlalchemy import func, select

from schemas import topology
from schemas.models import OutboxEntry, PrintJob, QuarantinedMessage
from schemas.print_jobs import PrintState
from tasks.quarantine.store import OPEN_STATES as UNDECIDED
from workers.doctor.finding import Finding
from workers.metrics.broker import lengths

LATE = timedelta(seconds=30)
"""A promise that is older is not on its way any more: housekeeping or the broker does not do its part."""
MANY_REPLIES = 1_000


def in_database(database: Database, now: datetime) -> Iterator[Finding]:
    """What waits in the tables."""
    number, oldest = database.execute(select(func.count(), func.min(OutboxEntry.created_at))).one()
    late = oldest is not None and now - oldest > LATE
    yield Finding(
        "outbox",
        good=not late,
        words=f"{number} messages to publish" + (f", the oldest for {_time(now - oldest)}" if oldest else ""),
        advice="Look whether the broker takes messages and a housekeeping worker runs." if late else "",
    )
    apart = database.execute(
        select(func.count()).select_from(QuarantinedMessage).where(QuarantinedMessage.state.in_(UNDECIDED))
    ).scalar_one()
    yield Finding(
        "quarantine",
        good=True,
        words=f"{apart} messages",
        advice="They were not believed or could not be processed: 'bookdrop quarantine list'." if apart else "",
    )
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
        good=True,
        words=", ".join(f"{number} {state.value}" for state, number in sorted(states.items())) or "none in trouble",
        advice="See 'bookdrop prints list --failed --held --unknown'." if states else "",
    )


def at_broker(connection: Connection, stations: Collection[str]) -> Iterator[Finding]:
    """What waits at the broker and should not."""
    dead = lengths(connection, [topology.DEAD_LETTER_QUEUE])[topology.DEAD_LETTER_QUEUE]
    yield Finding(
        "broker",
        good=True,
        words=f"{dead} dead letters",
        advice="Housekeeping takes them into the quarantine; if they stay, it does not run." if dead else "",
    )
    unread = lengths(connection, [topology.reply_queue(station) for station in stations])
    for queue, number in unread.items():
        if number > MANY_REPLIES:
            station = queue.removeprefix(topology.REPLY_QUEUE_PREFIX)
            yield Finding(
                "broker",
                good=True,
                words=f"{number} answers wait in {queue}",
                advice=f"Station {station} does not read them; start it, or they go after a week.",
            )


def _time(span: timedelta) -> str:
    return str(timedelta(seconds=int(span.total_seconds())))
