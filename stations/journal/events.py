# SPDX-License-Identifier: Apache-2.0
"""A station's events, on its own disk until their replies arrive.

Several processes of one station may open the journal at once. They share replies through it: the process that
receives a reply stores it here, and the process that waits for the reply polls for it here.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from schemas.circulation_events import read_reply
from schemas.replies import SlipNotice
from stations.journal.file import JournalFile
from stations.journal.slip_notices import read_seen

MAX_REPLIED: Final = 1_000
"""Events with a reply that are kept for `recent`; unanswered ones are always kept."""
MAX_EXCEPTIONS: Final = 5_000
"""Refusals of held events that are kept until staff acknowledge them."""
LATE_AFTER: Final = timedelta(minutes=1)
"""Replies later than this count as late: staff have moved on."""

_PRUNE_BATCH = 200
_COLUMNS = (
    "sequence, event_id, task, subject, payload, made_at, attempts, next_resend_at, answered_at, reply,"
    " slip_state, slip_words, held, ticked_at"
)
REFUSED: Final = "answered_at IS NOT NULL AND json_valid(reply) AND json_extract(reply, '$.outcome') = 'refused'"
EXCEPTION: Final = f"held AND ticked_at IS NULL AND {REFUSED}"


@dataclass(frozen=True)
class NewEvent:
    """An event that has no sequence number yet."""

    event_id: str
    task: str
    """Name of the task that processes the event."""
    subject: str
    """The barcode or the request, as staff see it."""
    encode: Callable[[int], str]
    """Return the event's JSON, signed, with the sequence number that the journal assigned."""


@dataclass(frozen=True)
class Entry:
    """One stored event. Times are aware UTC."""

    sequence: int
    event_id: str
    task: str
    subject: str
    """The barcode or the request, as staff see it."""
    payload: str
    """The event's JSON, signed; a resend carries these bytes."""
    made_at: datetime
    attempts: int
    """Number of sendings, failed ones included; storing the event counts as the first."""
    next_resend_at: datetime | None
    answered_at: datetime | None
    reply: str | None
    """The reply's JSON as it came."""
    slip_state: str | None
    slip_message: str | None
    held: bool = False
    """True when the event could not be sent at once, or its reply came later than `LATE_AFTER`."""
    acknowledged_at: datetime | None = None
    """When staff acknowledged the refusal of a held event."""


@dataclass(frozen=True)
class JournalStats:
    """Counts of a journal's open events."""

    unanswered: int
    oldest: datetime | None
    """When the oldest unanswered event was made."""
    exceptions: int
    """Held events that were refused and that staff have not acknowledged."""

    def is_overdue(self, now: datetime, limit: timedelta) -> bool:
        """True when the oldest unanswered event is older than `limit`."""
        return self.oldest is not None and now - self.oldest > limit


class Journal(JournalFile):
    """The events of the station `code` in one file. A change is on disk when the method returns. Thread-safe.

    Every method raises `JournalError` when the file cannot be used.
    """

    key_check: str | None = None
    """Check value of the key that signs the events of this process (`stations.journal.signing_key`)."""

    def append(self, event: NewEvent, now: datetime, resend_at: datetime) -> Entry:
        """Assign the next sequence number, encode the event with it, and store it in one transaction.

        An event that this method rejects must not be sent either.
        """
        with self.writing("Not taken; nothing was sent") as connection:
            self.check_capacity(connection)
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
            sequence = (row[0] if row else 0) + 1
            payload = event.encode(sequence)
            connection.execute(
                "INSERT INTO events (sequence, event_id, task, subject, payload, made_at, next_resend_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (sequence, event.event_id, event.task, event.subject, payload, to_text(now), to_text(resend_at)),
            )
            if self.key_check is not None:  # another process may use another key: the next start signs these again
                connection.execute("UPDATE station SET key_check = ? WHERE key_check IS NOT ?", (self.key_check,) * 2)
        return Entry(
            sequence, event.event_id, event.task, event.subject, payload, now, 1, resend_at, None, None, None, None
        )

    def claim_due(self, now: datetime, retry_delay: Callable[[int], timedelta], limit: int = 50) -> list[Entry]:
        """Claim the unanswered events that are due, oldest first; of several processes only one claims an event.

        The claim counts the sending that follows. `retry_delay` takes the number of sendings, this one included, and
        returns the time until the event is due again.
        """
        if not self._entries("answered_at IS NULL AND next_resend_at <= ? LIMIT 1", to_text(now)) or self.moved_to():
            return []  # the common case: no lock and no write
        claimed: list[Entry] = []
        with self._write() as connection:
            for entry in self._entries(
                "answered_at IS NULL AND next_resend_at <= ? ORDER BY sequence LIMIT ?", to_text(now), limit
            ):
                attempts = entry.attempts + 1
                resend_at = now + retry_delay(attempts)
                connection.execute(
                    "UPDATE events SET attempts = ?, next_resend_at = ? WHERE event_id = ?",
                    (attempts, to_text(resend_at), entry.event_id),
                )
                claimed.append(replace(entry, attempts=attempts, next_resend_at=resend_at))
        return claimed

    def hold(self, event_ids: Iterable[str], until: datetime) -> None:
        """Mark events that could not be sent as held, and due again at `until`."""
        with self._write() as connection:
            connection.executemany(
                "UPDATE events SET next_resend_at = ?, held = 1 WHERE event_id = ? AND answered_at IS NULL",
                [(to_text(until), event_id) for event_id in event_ids],
            )

    def mark_all_due(self, made_before: datetime, now: datetime) -> int:
        """Mark every unanswered event made before then as held and due now, so that all go in order; return the count."""
        due = "answered_at IS NULL AND made_at <= ?"
        if not self._entries(f"{due} LIMIT 1", to_text(made_before)):
            return 0
        with self._write() as connection:
            return connection.execute(
                f"UPDATE events SET next_resend_at = ?, held = 1 WHERE {due}",  # noqa: S608
                (to_text(now), to_text(made_before)),
            ).rowcount

    def store_replies(
        self, replies: Mapping[str, str], now: datetime, provisional: Collection[str] = ()
    ) -> list[Entry]:
        """Store replies, event id to JSON, in one write; return the entries to which the reply is new.

        A provisional reply closes its event too, and another reply replaces it.
        """
        stored: list[Entry] = []
        with self._write() as connection:
            for event_id, reply in replies.items():
                changed = connection.execute(
                    "UPDATE events SET reply = ?, answered_at = ?, next_resend_at = NULL, provisional = ?,"
                    " held = held OR made_at < ?"
                    " WHERE event_id = ? AND (answered_at IS NULL OR (provisional AND reply <> ?))",
                    (reply, to_text(now), event_id in provisional, to_text(now - LATE_AFTER), event_id, reply),
                ).rowcount
                if changed == 1:
                    stored += self._entries("event_id = ?", event_id)
        return stored

    def store_slip_notice(self, notice: SlipNotice, now: datetime) -> Entry | None:
        """Store the state of the event's slip; return the entry when it changed, `None` otherwise.

        A notice that was received before, or that is older than the newest one, changes nothing.
        """
        event_id = str(notice.event_id)
        with self._write() as connection:
            row = connection.execute("SELECT slip_notices FROM events WHERE event_id = ?", (event_id,)).fetchone()
            seen = read_seen(row[0]).add(notice, now) if row is not None else None
            if seen is None:
                return None
            connection.execute("UPDATE events SET slip_notices = ? WHERE event_id = ?", (seen.to_text(), event_id))
            changed = connection.execute(
                "UPDATE events SET slip_state = ?, slip_words = ? WHERE event_id = ?"
                " AND (slip_state IS NOT ? OR slip_words IS NOT ?)",
                (notice.state, notice.message, event_id, notice.state, notice.message),
            ).rowcount
            return self.entry(event_id) if changed == 1 else None

    def entry(self, event_id: str) -> Entry | None:
        """One event; `None` when this station never stored it, or it was pruned."""
        found = self._entries("event_id = ?", event_id)
        return found[0] if found else None

    def unanswered(self) -> list[Entry]:
        """All unanswered events, oldest first."""
        return self._entries("answered_at IS NULL ORDER BY sequence")

    def count_due(self, now: datetime) -> tuple[int, datetime | None]:
        """Number of unanswered events that are due, and when the oldest of them was made; those in flight are not due."""
        with self.reading() as connection:
            count, oldest = connection.execute(
                "SELECT count(*), min(made_at) FROM events WHERE answered_at IS NULL AND next_resend_at <= ?",
                (to_text(now),),
            ).fetchone()
        return count, _optional_time(oldest)

    def recent(self, limit: int = 10, *, unanswered: bool = False, refused: bool = False) -> list[Entry]:
        """The newest events, newest last; with a filter only the unanswered, the refused, or both."""
        kinds = [where for where, wanted in (("answered_at IS NULL", unanswered), (REFUSED, refused)) if wanted]
        where = " OR ".join(f"({kind})" for kind in kinds) or "1"
        return self._entries(f"{where} ORDER BY sequence DESC LIMIT ?", limit)[::-1]

    def exceptions(self) -> list[Entry]:
        """Held events that were refused and that staff have not acknowledged, oldest first."""
        return self._entries(f"{EXCEPTION} ORDER BY sequence")

    def acknowledge_exceptions(self, event_ids: Iterable[str], now: datetime) -> int:
        """Record that staff have acknowledged these exceptions; return the number of events that were exceptions."""
        with self._write() as connection:
            return sum(
                connection.execute(
                    f"UPDATE events SET ticked_at = ? WHERE event_id = ? AND {EXCEPTION}",  # noqa: S608
                    (to_text(now), event_id),
                ).rowcount
                for event_id in event_ids
            )

    def stats(self) -> JournalStats:
        """Count the open events."""
        with self.reading() as connection:
            unanswered, oldest = connection.execute(
                "SELECT count(*), min(made_at) FROM events WHERE answered_at IS NULL"
            ).fetchone()
            (exceptions,) = connection.execute(f"SELECT count(*) FROM events WHERE {EXCEPTION}").fetchone()  # noqa: S608
        return JournalStats(unanswered, _optional_time(oldest), exceptions)

    def count_held(self, up_to: int | None = None) -> tuple[int, int]:
        """Number of unanswered held events with a sequence number up to `up_to`, and the highest of these numbers."""
        with self.reading() as connection:
            count, last = connection.execute(
                "SELECT count(*), max(sequence) FROM events WHERE answered_at IS NULL AND held AND sequence <= ?",
                (2**62 if up_to is None else up_to,),
            ).fetchone()
        return count, last or 0

    def prune(self, keep: int = MAX_REPLIED) -> int:
        """Delete the oldest events with a reply beyond `keep`, one batch at a time; return the number deleted."""
        with self._write() as connection:
            return sum(
                connection.execute(
                    "DELETE FROM events WHERE sequence IN (SELECT sequence FROM events WHERE answered_at IS NOT NULL"  # noqa: S608
                    f" AND {kind} ORDER BY sequence DESC LIMIT ? OFFSET ?)",
                    (_PRUNE_BATCH, limit),
                ).rowcount
                for kind, limit in ((f"NOT coalesce({EXCEPTION}, 0)", keep), (EXCEPTION, MAX_EXCEPTIONS))
            )

    def _entries(self, where: str, *values: object) -> list[Entry]:
        with self.reading() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM events WHERE {where}", values).fetchall()  # noqa: S608
        return [_entry(row) for row in rows]


def to_text(moment: datetime) -> str:
    """A time as the file stores it; text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _optional_time(text: str | None) -> datetime | None:
    return None if text is None else _time(text)


def _entry(row: tuple[Any, ...]) -> Entry:
    sequence, event_id, task, subject, payload, made_at, attempts, resend_at, answered_at, *rest = row
    reply, slip_state, slip_message, held, acknowledged_at = rest
    times = _time(made_at), attempts, _optional_time(resend_at), _optional_time(answered_at)
    slip = slip_state, slip_message
    return Entry(
        sequence, event_id, task, subject, payload, *times, reply, *slip, bool(held), _optional_time(acknowledged_at)
    )


_UNDO_SEARCH_LIMIT: Final = 50


def last_returned(journal: Journal) -> UUID | None:
    """The newest event of this station that returned an item and that was not undone; `None` without one."""
    undone: set[str] = set()
    for entry in reversed(journal.recent(_UNDO_SEARCH_LIMIT)):
        if entry.reply is None:
            continue
        reply = read_reply(entry.reply)
        if reply.reason.startswith("undone"):
            undone.add(entry.subject)
        elif reply.outcome == "returned" and str(reply.event_id) not in undone:
            return reply.event_id
    return None
