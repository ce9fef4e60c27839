# SPDX-License-Identifier: Apache-2.0
"""The journal's file: open and verify it, share it between processes, and report its errors with the next step."""

import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.private_files import prepare_sqlite_file

VERSION: Final = 1
"""Format version; a program that supports a lower one cannot use the file. An added column does not change it."""
_LOCK_TIMEOUT_SECONDS = 10
_LATER_COLUMNS = (
    ("events", "held", "INTEGER NOT NULL DEFAULT 0"),
    ("events", "provisional", "INTEGER NOT NULL DEFAULT 0"),
    ("events", "ticked_at", "TEXT"),
    ("events", "slip_notices", "TEXT"),
    ("station", "moved_at", "TEXT"),
    ("station", "moved_to", "TEXT"),
    ("station", "key_check", "TEXT"),
    ("station", "rejected_messages", "INTEGER NOT NULL DEFAULT 0"),
    ("station", "rejected_at", "TEXT"),
    ("station", "rejected_defect", "TEXT"),
)
"""Columns that are missing from the journal of an earlier program."""
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
    """Limits of a journal's growth. A scan beyond them is rejected before it is stored."""

    max_unanswered: int = 20_000
    min_free_bytes: int = 50_000_000
    """Space on the journal's disk that must stay free."""


class JournalError(Exception):
    """The journal cannot be used, so no scan can be stored. The text states the cause and the next step."""


class JournalFile:
    """The file of station `code`. Thread-safe. Every method raises `JournalError` when the file cannot be used."""

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
        """Close the file."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def moved_to(self) -> str | None:
        """Where this journal was moved, if it was: then this copy accepts and sends nothing."""
        with self.reading() as connection:
            found: str | None = connection.execute("SELECT moved_to FROM station").fetchone()[0]
        return found

    def write_blocker(self) -> str | None:
        """The reason why the next scan would be rejected; `None` when it would be stored."""
        try:
            with self.writing("The next scan would not be taken") as connection:
                self.check_capacity(connection)
        except JournalError as error:
            return str(error)
        return None

    def data_version(self) -> int:
        """A number that changes when another process or connection writes to the journal (`PRAGMA data_version`)."""
        with self.reading() as connection:
            number: int = connection.execute("PRAGMA data_version").fetchone()[0]
        return number

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A barcode can lead to a patron, so only this user may read the file.
        prepare_sqlite_file(self.path)
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
                " give each station its own journal (setting journal)."
            )

    @staticmethod
    def _add_columns(connection: sqlite3.Connection) -> None:
        present = {
            (name, row[1]) for name in ("events", "station") for row in connection.execute(f"PRAGMA table_info({name})")
        }
        for name, column, kind in _LATER_COLUMNS:
            if (name, column) not in present:
                with contextlib.suppress(sqlite3.OperationalError):  # another process added it first
                    connection.execute(f"ALTER TABLE {name} ADD COLUMN {column} {kind}")

    def check_capacity(self, connection: sqlite3.Connection) -> None:
        """Raise `JournalError` when the journal was moved, is at its limit, or its disk is nearly full."""
        (moved,) = connection.execute("SELECT moved_to FROM station").fetchone()
        if moved is not None:
            raise JournalError(
                f"Not taken; nothing was sent: this station's journal was moved to {moved}. Scan where it is now, or import"
                " it here again: bookdrop-station journal import FILE"
            )
        (waiting,) = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM events WHERE answered_at IS NULL LIMIT ?)",
            (self.limits.max_unanswered,),
        ).fetchone()
        if waiting >= self.limits.max_unanswered:
            raise JournalError(
                f"Not taken; nothing was sent: {waiting} scans wait here without a reply, and no more are stored (setting"
                " journal_max_unanswered). They are safe. Put further items aside until the server is back, then scan them."
            )
        free = shutil.disk_usage(self.path.parent).free
        if free < self.limits.min_free_bytes:
            raise JournalError(
                f"Not taken; nothing was sent: the disk of {self.path} has {free // 1_000_000} MB left, and"
                f" {self.limits.min_free_bytes // 1_000_000} MB must stay free (setting journal_min_free_mb). Earlier"
                " scans are safe. Free some disk space, then scan again."
            )

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for reading only."""
        with self._errors_as_text("Nothing was read"), self._lock:
            yield self._connection

    def _write(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self.writing("Earlier scans are kept unchanged")

    @contextmanager
    def writing(self, consequence: str) -> Iterator[sqlite3.Connection]:
        """One transaction. The text of an error starts with `consequence`."""
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
        return "Move the damaged file aside and keep it for repair, then scan again."
    return "Repair the disk or name another file (setting journal), then scan again."
