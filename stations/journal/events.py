# SPDX-License-Identifier: Apache-2.0
"""What a desk took, on its own disk until it is answered.

Several processes of one station may have the journal open at once; it is where they meet: whoever hears an answer
writes it here, and whoever waits for it looks here.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from schemas.circulation_events import read_reply
from stations.journal.file import JournalFile

MAX_ANSWERED: Final = 1_000
"""How many answered events are kept for `recent`; what is not answered is always kept."""
MAX_EXCEPTIONS: Final = 5_000
"""How many refusals of held events are kept until somebody has seen to them."""
LATE_AFTER: Final = timedelta(minutes=1)
"""Whoever scanned has gone on by then: an answer that comes later is one that nobody waits for."""

_PRUNE_BATCH = 200
_COLUMNS = (
    "sequence, event_id, task, subject, payload, made_at, attempts, next_resend_at, answered_at, reply,"
    " slip_state, slip_words, held, ticked_at"
)
REFUSED: Final = "answered_at IS NOT NULL AND json_valid(reply) AND json_extract(reply, '$.outcome') = 'refused'"
EXCEPTION: Final = f"held AND ticked_at IS NULL AND {REFUSED}"


@dataclass(frozen=True)
class Entry:
    """One event that the desk took. Times are aware UTC."""

    sequence: int
    event_id: str
    task: str
    subject: str
    """What staff see of it: the barcode, or the request."""
    payload: str
    """The event's JSON, signed; a resend carries these bytes."""
    made_at: datetime
    attempts: int
    """How often it was sent, or tried to be; being taken counts as the first."""
    next_resend_at: datetime | None
    answered_at: datetime | None
    reply: str | None
    """The answer's JSON as it came."""
    slip_state: str | None
    slip_message: str | None
    held: bool = False
    """Whether it could not be sent at once, or its answer came when whoever scanned had gone on."""
    acknowledged_at: datetime | None = None
    """When somebody had seen to the refusal of a held event."""


@dataclass(frozen=True)
class JournalStats:
    """How a journal stands."""

    unanswered: int
    oldest: datetime | None
    """When the oldest unanswered event was made."""
    exceptions: int
    """Held events that were refused and that staff have not acknowledged."""

    def is_overdue(self, now: datetime, limit: timedelta) -> bool:
        """True when the oldest unanswered event is older than `limit`."""
        return self.oldest is not None and now - self.oldest > limit


class Journal(JournalFile):
    """A file of events of the station `code`. What a method changed is on the disk when it returns. Thread-safe.

    Every method raises `JournalError` when the file cannot be used.
    """

    def take(self, build: Callable[[int], tuple[str, str, str, str]], now: datetime, resend_at: datetime) -> Entry:
        """Keep a new event. `build` makes it from its sequence number: (event id, task, subject, payload JSON).

        When it cannot be kept it must not be sent either.
        """
        with self.writing("Not taken; nothing was sent") as connection:
            self.check_capacity(connection)
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
            sequence = (row[0] if row else 0) + 1
            event_id, task, subject, payload = build(sequence)
            connection.execute(
                "INSERT INTO events (sequence, event_id, task, subject, payload, made_at, next_resend_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (sequence, event_id, task, subject, payload, to_text(now), to_text(resend_at)),
            )
        return Entry(sequence, event_id, task, subject, payload, now, 1, resend_at, None, None, None, None)

    def claim_due(self, now: datetime, retry_delay: Callable[[int], timedelta], limit: int = 50) -> list[Entry]:
        """Claim the unanswered events that are to be sent again now, oldest first.

        Each is due again after `retry_delay(attempts)`; of several processes only one gets it.
        """
        if not self._entries("answered_at IS NULL AND next_resend_at <= ? LIMIT 1", to_text(now)) or self.moved_to():
            return []  # the common case, for which no lock is taken and nothing is written
        with self._write() as connection:
            found = self._entries(
                "answered_at IS NULL AND next_resend_at <= ? ORDER BY sequence LIMIT ?", to_text(now), limit
            )
            connection.executemany(
                "UPDATE events SET attempts = attempts + 1, next_resend_at = ? WHERE event_id = ?",
                [(to_text(now + retry_delay(entry.attempts + 1)), entry.event_id) for entry in found],
            )
        return found

    def hold(self, event_ids: Iterable[str], until: datetime) -> None:
        """Have events that could not be sent be due again at `until`; they are held now."""
        with self._write() as connection:
            connection.executemany(
                "UPDATE events SET next_resend_at = ?, held = 1 WHERE event_id = ? AND answered_at IS NULL",
                [(to_text(until), event_id) for event_id in event_ids],
            )

    def mark_all_due(self, made_before: datetime, now: datetime) -> int:
        """Have every unanswered event made before then be due now, so that they go in their order; give how many."""
        due = "answered_at IS NULL AND made_at <= ?"
        if not self._entries(f"{due} LIMIT 1", to_text(made_before)):
            return 0
        with self._write() as connection:
            return connection.execute(
                f"UPDATE events SET next_resend_at = ?, held = 1 WHERE {due}",  # noqa: S608
                (to_text(now), to_text(made_before)),
            ).rowcount

    def store_replies(self, replies: Mapping[str, str], now: datetime, provisional: Collection[str] = ()) -> set[str]:
        """Keep answers, event id to reply; give those that are news to an event of this desk. One write for all.

        A provisional one closes its event as well, and gives way to another one.
        """
        stored: set[str] = set()
        with self._write() as connection:
            for event_id, reply in replies.items():
                changed = connection.execute(
                    "UPDATE events SET reply = ?, answered_at = ?, next_resend_at = NULL, provisional = ?,"
                    " held = held OR made_at < ?"
                    " WHERE event_id = ? AND (answered_at IS NULL OR (provisional AND reply <> ?))",
                    (reply, to_text(now), event_id in provisional, to_text(now - LATE_AFTER), event_id, reply),
                ).rowcount
                if changed == 1:
                    stored.add(event_id)
        return stored

    def store_slip_notice(self, event_id: str, state: str, message: str) -> bool:
        """Keep what became of the event's slip; tell whether it is news to an event of this desk."""
        with self._write() as connection:
            changed = connection.execute(
                "UPDATE events SET slip_state = ?, slip_words = ? WHERE event_id = ?"
                " AND (slip_state IS NOT ? OR slip_words IS NOT ?)",
                (state, message, event_id, state, message),
            ).rowcount
        return changed == 1

    def entry(self, event_id: str) -> Entry | None:
        """One event; `None` when this desk never took it, or it was pruned."""
        found = self._entries("event_id = ?", event_id)
        return found[0] if found else None

    def unanswered(self) -> list[Entry]:
        """All unanswered events, oldest first."""
        return self._entries("answered_at IS NULL ORDER BY sequence")

    def count_due(self, now: datetime) -> tuple[int, datetime | None]:
        """How many events could not be sent yet or are to be sent again now, and when the oldest of them was made."""
        with self.reading() as connection:
            count, oldest = connection.execute(
                "SELECT count(*), min(made_at) FROM events WHERE answered_at IS NULL AND next_resend_at <= ?",
                (to_text(now),),
            ).fetchone()
        return count, _optional_time(oldest)

    def recent(self, limit: int = 10, *, unanswered: bool = False, refused: bool = False) -> list[Entry]:
        """The newest events, newest last; of all, or only those without an answer or with a refusal."""
        kinds = [where for where, wanted in (("answered_at IS NULL", unanswered), (REFUSED, refused)) if wanted]
        where = " OR ".join(f"({kind})" for kind in kinds) or "1"
        return self._entries(f"{where} ORDER BY sequence DESC LIMIT ?", limit)[::-1]

    def exceptions(self) -> list[Entry]:
        """The held events that were refused and that nobody has seen to, oldest first."""
        return self._entries(f"{EXCEPTION} ORDER BY sequence")

    def acknowledge_exceptions(self, event_ids: Iterable[str], now: datetime) -> int:
        """Note that somebody has seen to these exceptions; give how many were ones."""
        with self._write() as connection:
            return sum(
                connection.execute(
                    f"UPDATE events SET ticked_at = ? WHERE event_id = ? AND {EXCEPTION}",  # noqa: S608
                    (to_text(now), event_id),
                ).rowcount
                for event_id in event_ids
            )

    def stats(self) -> JournalStats:
        """How it stands."""
        with self.reading() as connection:
            unanswered, oldest = connection.execute(
                "SELECT count(*), min(made_at) FROM events WHERE answered_at IS NULL"
            ).fetchone()
            (exceptions,) = connection.execute(f"SELECT count(*) FROM events WHERE {EXCEPTION}").fetchone()  # noqa: S608
        return JournalStats(unanswered, _optional_time(oldest), exceptions)

    def count_held(self, up_to: int | None = None) -> tuple[int, int]:
        """How many held events have no answer, of those with a number up to `up_to`; and their last number."""
        with self.reading() as connection:
            count, last = connection.execute(
                "SELECT count(*), max(sequence) FROM events WHERE answered_at IS NULL AND held AND sequence <= ?",
                (2**62 if up_to is None else up_to,),
            ).fetchone()
        return count, last or 0

    def prune(self, keep: int = MAX_ANSWERED) -> int:
        """Forget the oldest answered events beyond `keep`, a bounded number at a time; give how many went."""
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
    """A time as it stands in the file: its order is that of the text."""
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
    """The newest event of this desk that returned something and that it has not asked to undo; `None` if none did."""
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
