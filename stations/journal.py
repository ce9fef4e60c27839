# SPDX-License-Identifier: Apache-2.0
"""What a desk took, on its own disk until it is answered.

Several processes of one station may have the journal open at once; it is where they meet: whoever hears an answer
writes it here, and whoever waits for it looks here.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

VERSION: Final = 1
KEEP: Final = 1_000
"""How many answered events are kept for `recent`; what is not answered is always kept."""

_PRUNED_AT_ONCE = 200
_SECONDS_FOR_A_LOCK = 10
_COLUMNS = (
    "sequence, event_id, task, subject, payload, made_at, attempts, next_resend_at, answered_at, reply,"
    " slip_state, slip_words"
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS station (only_one INTEGER PRIMARY KEY CHECK (only_one = 1), code TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    subject TEXT NOT NULL,
    payload TEXT NOT NULL,
    made_at TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 1,
    next_resend_at TEXT,
    answered_at TEXT,
    reply TEXT,
    slip_state TEXT,
    slip_words TEXT
);
CREATE INDEX IF NOT EXISTS events_due ON events (next_resend_at) WHERE answered_at IS NULL;
"""


class JournalError(Exception):
    """The journal cannot be used, so nothing can be taken. The text says why and what to do."""


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
    slip_words: str | None


class Journal:
    """A file of events of the station `code`. What a method changed is on the disk when it returns. Thread-safe.

    Every method raises `JournalError` when the file cannot be used.
    """

    def __init__(self, path: Path, code: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._told("Nothing was taken and nothing was sent"):
            self._connection = self._open()
            try:
                self._prepare(code)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Let go of the file."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def take(self, build: Callable[[int], tuple[str, str, str, str]], now: datetime, resend_at: datetime) -> Entry:
        """Keep a new event. `build` makes it from its sequence number: (event id, task, subject, payload JSON).

        When it cannot be kept it must not be sent either.
        """
        with self._write("Not taken; nothing was sent") as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
            sequence = (row[0] if row else 0) + 1
            event_id, task, subject, payload = build(sequence)
            connection.execute(
                "INSERT INTO events (sequence, event_id, task, subject, payload, made_at, next_resend_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (sequence, event_id, task, subject, payload, _text(now), _text(resend_at)),
            )
        return Entry(sequence, event_id, task, subject, payload, now, 1, resend_at, None, None, None, None)

    def due(self, now: datetime, next_wait: Callable[[int], timedelta], limit: int = 50) -> list[Entry]:
        """Claim the unanswered events that are to be sent again now, oldest first.

        Each is due again after `next_wait(attempts)`; of several processes only one gets it.
        """
        if not self._entries("answered_at IS NULL AND next_resend_at <= ? LIMIT 1", _text(now)):
            return []  # the common case, for which no lock is taken and nothing is written
        with self._write() as connection:
            found = self._entries(
                "answered_at IS NULL AND next_resend_at <= ? ORDER BY sequence LIMIT ?", _text(now), limit
            )
            connection.executemany(
                "UPDATE events SET attempts = attempts + 1, next_resend_at = ? WHERE event_id = ?",
                [(_text(now + next_wait(entry.attempts + 1)), entry.event_id) for entry in found],
            )
        return found

    def hold(self, event_ids: Iterable[str], until: datetime) -> None:
        """Have events that could not be sent be due again at `until`."""
        with self._write() as connection:
            connection.executemany(
                "UPDATE events SET next_resend_at = ? WHERE event_id = ? AND answered_at IS NULL",
                [(_text(until), event_id) for event_id in event_ids],
            )

    def answer(self, answers: Mapping[str, str], now: datetime) -> set[str]:
        """Keep answers, event id to reply; give those that are news to an event of this desk. One write for all."""
        news: set[str] = set()
        with self._write() as connection:
            for event_id, reply in answers.items():
                changed = connection.execute(
                    "UPDATE events SET reply = ?, answered_at = ?, next_resend_at = NULL"
                    " WHERE event_id = ? AND answered_at IS NULL",
                    (reply, _text(now), event_id),
                ).rowcount
                if changed == 1:
                    news.add(event_id)
        return news

    def note_slip(self, event_id: str, state: str, words: str) -> bool:
        """Keep what became of the event's slip; tell whether it is news to an event of this desk."""
        with self._write() as connection:
            changed = connection.execute(
                "UPDATE events SET slip_state = ?, slip_words = ? WHERE event_id = ?"
                " AND (slip_state IS NOT ? OR slip_words IS NOT ?)",
                (state, words, event_id, state, words),
            ).rowcount
        return changed == 1

    def entry(self, event_id: str) -> Entry | None:
        """One event; `None` when this desk never took it, or it was pruned."""
        found = self._entries("event_id = ?", event_id)
        return found[0] if found else None

    def unanswered(self) -> list[Entry]:
        """All unanswered events, oldest first."""
        return self._entries("answered_at IS NULL ORDER BY sequence")

    def held(self, now: datetime) -> tuple[int, datetime | None]:
        """How many events could not be sent yet or are to be sent again now, and when the oldest of them was made."""
        with self._read() as connection:
            number, oldest = connection.execute(
                "SELECT count(*), min(made_at) FROM events WHERE answered_at IS NULL AND next_resend_at <= ?",
                (_text(now),),
            ).fetchone()
        return number, _maybe(oldest)

    def recent(self, limit: int = 10) -> list[Entry]:
        """The newest events, newest last."""
        return self._entries("1 ORDER BY sequence DESC LIMIT ?", limit)[::-1]

    def changes_of_others(self) -> int:
        """A number that differs from the last one when another process or connection wrote to the journal."""
        with self._read() as connection:
            number: int = connection.execute("PRAGMA data_version").fetchone()[0]
        return number

    def prune(self, keep: int = KEEP) -> int:
        """Forget the oldest answered events beyond `keep`, a bounded number at a time; give how many went."""
        with self._write() as connection:
            return connection.execute(
                "DELETE FROM events WHERE sequence IN (SELECT sequence FROM events WHERE answered_at IS NOT NULL"
                " ORDER BY sequence DESC LIMIT ? OFFSET ?)",
                (_PRUNED_AT_ONCE, keep),
            ).rowcount

    def _entries(self, where: str, *values: object) -> list[Entry]:
        with self._read() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM events WHERE {where}", values).fetchall()  # noqa: S608
        return [_entry(row) for row in rows]

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A barcode can lead to a reader, so the file is for nobody else's eyes; SQLite's side files follow it.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        return sqlite3.connect(self.path, timeout=_SECONDS_FOR_A_LOCK, isolation_level=None, check_same_thread=False)

    def _prepare(self, code: str) -> None:
        connection = self._connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("database disk image is malformed")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            raise JournalError(
                f"The journal {self.path} was written by a newer bookdrop-station. Nothing was taken; update this one."
            )
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        connection.execute("INSERT OR IGNORE INTO station VALUES (1, ?)", (code,))
        (owner,) = connection.execute("SELECT code FROM station").fetchone()
        if owner != code:
            raise JournalError(
                f"The journal {self.path} belongs to station {owner}, and this is {code}. Nothing was taken;"
                " give each station a journal of its own (setting journal)."
            )

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._told("It could not be read"), self._lock:
            yield self._connection

    @contextmanager
    def _write(self, otherwise: str = "What was taken before is kept as it is") -> Iterator[sqlite3.Connection]:
        with self._told(otherwise), self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _told(self, otherwise: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise JournalError(
                f"{otherwise}; the journal {self.path} cannot be used ({error}). {_next_step(error)}"
            ) from error


def _next_step(error: Exception) -> str:
    words = str(error).lower()
    if "full" in words or "no space" in words:
        return "Free some disk space, then scan again."
    if "readonly" in words or "read-only" in words or "permission" in words or "unable to open" in words:
        return "Make the file and its folder writable for this user, then scan again."
    if "malformed" in words or "not a database" in words:
        return "Move the damaged file aside and keep it for whoever mends it, then scan again."
    return "Mend the disk or name another file (setting journal), then scan again."


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _maybe(text: str | None) -> datetime | None:
    return None if text is None else _time(text)


def _entry(row: tuple[Any, ...]) -> Entry:
    sequence, event_id, task, subject, payload, made_at, attempts, resend_at, answered_at, *heard = row
    times = _time(made_at), attempts, _maybe(resend_at), _maybe(answered_at)
    return Entry(sequence, event_id, task, subject, payload, *times, *heard)
