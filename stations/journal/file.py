# SPDX-License-Identifier: Apache-2.0
"""The file of a desk's journal: opened, found whole, shared by processes, and told of in words when it cannot be used."""

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VERSION: Final = 1
"""What a program that knows a lower number cannot use. A column more does not change it."""
_LOCK_TIMEOUT_SECONDS = 10
_LATER_COLUMNS = (
    ("events", "held", "INTEGER NOT NULL DEFAULT 0"),
    ("events", "provisional", "INTEGER NOT NULL DEFAULT 0"),
    ("events", "ticked_at", "TEXT"),
    ("station", "moved_at", "TEXT"),
    ("station", "moved_to", "TEXT"),
)
"""Columns that a journal of an earlier program has not."""
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


@dataclass(frozen=True)
class JournalLimits:
    """How far a journal may grow. A scan beyond that is refused before it is taken."""

    max_unanswered: int = 20_000
    min_free_bytes: int = 50_000_000
    """How much of the disk is left alone."""


class JournalError(Exception):
    """The journal cannot be used, so nothing can be taken. The text says why and what to do."""


class JournalFile:
    """A journal's file, of the station `code`. Thread-safe. Every method raises `JournalError` when it cannot be used."""

    def __init__(self, path: Path, code: str, limits: JournalLimits = JournalLimits()) -> None:
        self.path = path
        self.code = code
        self.limits = limits
        self._lock = threading.RLock()
        with self._errors_as_text("Nothing was taken and nothing was sent"):
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

    def moved_to(self) -> str | None:
        """Where this journal went, if it was moved: nothing is taken or sent here any more."""
        with self.reading() as connection:
            found: str | None = connection.execute("SELECT moved_to FROM station").fetchone()[0]
        return found

    def write_blocker(self) -> str | None:
        """Why the next scan would not be taken, in words; `None` when it would."""
        try:
            with self.writing("The next scan would not be taken") as connection:
                self.check_capacity(connection)
        except JournalError as error:
            return str(error)
        return None

    def data_version(self) -> int:
        """A number that differs from the last one when another process or connection wrote to the journal."""
        with self.reading() as connection:
            number: int = connection.execute("PRAGMA data_version").fetchone()[0]
        return number

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A barcode can lead to a reader, so the file is for nobody else's eyes; SQLite's side files follow it.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        return sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)

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
        self._add_columns(connection)
        connection.execute("INSERT OR IGNORE INTO station (only_one, code) VALUES (1, ?)", (code,))
        (owner,) = connection.execute("SELECT code FROM station").fetchone()
        if owner != code:
            raise JournalError(
                f"The journal {self.path} belongs to station {owner}, and this is {code}. Nothing was taken;"
                " give each station a journal of its own (setting journal)."
            )

    @staticmethod
    def _add_columns(connection: sqlite3.Connection) -> None:
        present = {
            (name, row[1]) for name in ("events", "station") for row in connection.execute(f"PRAGMA table_info({name})")
        }
        for name, column, kind in _LATER_COLUMNS:
            if (name, column) not in present:
                with contextlib.suppress(sqlite3.OperationalError):  # another process was quicker
                    connection.execute(f"ALTER TABLE {name} ADD COLUMN {column} {kind}")

    def check_capacity(self, connection: sqlite3.Connection) -> None:
        """Raises `JournalError` when nothing more is to be taken."""
        (moved,) = connection.execute("SELECT moved_to FROM station").fetchone()
        if moved is not None:
            raise JournalError(
                f"Not taken; nothing was sent: this desk's journal was moved to {moved}. Scan where it is now, or take it"
                " back: bookdrop-station journal import FILE"
            )
        (waiting,) = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM events WHERE answered_at IS NULL LIMIT ?)",
            (self.limits.max_unanswered,),
        ).fetchone()
        if waiting >= self.limits.max_unanswered:
            raise JournalError(
                f"Not taken; nothing was sent: {waiting} scans wait here without an answer, and no more are kept (setting"
                " journal_max_unanswered). They are safe. Put further items aside until the server is back, then scan them."
            )
        free = shutil.disk_usage(self.path.parent).free
        if free < self.limits.min_free_bytes:
            raise JournalError(
                f"Not taken; nothing was sent: the disk of {self.path} has {free // 1_000_000} MB left, and"
                f" {self.limits.min_free_bytes // 1_000_000} MB must stay free (setting journal_min_free_mb). What was taken"
                " before is safe. Free some disk space, then scan again."
            )

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, to look only."""
        with self._errors_as_text("It could not be read"), self._lock:
            yield self._connection

    def _write(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self.writing("What was taken before is kept as it is")

    @contextmanager
    def writing(self, consequence: str) -> Iterator[sqlite3.Connection]:
        """One transaction. `consequence`: what is said first when it fails."""
        with self._errors_as_text(consequence), self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors_as_text(self, consequence: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise JournalError(
                f"{consequence}; the journal {self.path} cannot be used ({error}). {_next_step(error)}"
            ) from error


def _next_step(error: Exception) -> str:
    text = str(error).lower()
    if "full" in text or "no space" in text:
        return "Free some disk space, then scan again."
    if "readonly" in text or "read-only" in text or "permission" in text or "unable to open" in text:
        return "Make the file and its folder writable for this user, then scan again."
    if "malformed" in text or "not a database" in text:
        return "Move the damaged file aside and keep it for whoever mends it, then scan again."
    return "Mend the disk or name another file (setting journal), then scan again."
