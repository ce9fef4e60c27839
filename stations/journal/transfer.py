# SPDX-License-Identifier: Apache-2.0
"""Export and import a journal. Exporting closes the source, so one copy is active.

A closed journal accepts no scans, and its station sends and receives nothing. When two copies are active anyway, because
the file was copied by hand, no harm is done: a worker processes an event once, whichever machine sends it.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from schemas.private_files import FILE_MODE
from stations.journal.events import EXCEPTION, Journal, to_text
from stations.journal.file import VERSION, JournalError

_BASE = "event_id, task, subject, payload, made_at, attempts, answered_at, reply, slip_state, slip_words"


@dataclass(frozen=True)
class TransferCounts:
    """Number of events that were exported or imported."""

    events: int
    unanswered: int


def export_journal(journal: Journal, target: Path, now: datetime, *, closes: bool = True) -> TransferCounts:
    """Write the whole journal into the new file `target`, and close the journal here unless `closes` is false.

    Raises `JournalError`; then nothing was changed, and `target` does not exist.
    """
    if target.exists():
        raise JournalError(f"The file {target} exists already. Nothing was changed; name another one.")
    part = target.with_name(target.name + ".part")
    try:
        with journal.writing("Nothing was changed") as connection:
            if closes and journal.moved_to() is not None:
                raise JournalError(f"This journal was moved to {journal.moved_to()} already. Nothing was changed.")
            _copy(journal.path, part)
            counts = _counts(connection)
            # The file exists before the journal closes: a crash in between leaves two copies, which is harmless.
            part.rename(target)
            _fsync_folder(target.parent)
            if closes:
                connection.execute("UPDATE station SET moved_at = ?, moved_to = ?", (to_text(now), str(target)))
    finally:
        part.unlink(missing_ok=True)
    return counts


def import_journal(journal: Journal, source: Path, now: datetime) -> TransferCounts:
    """Import a journal's file into this journal of the same station; return what is new here. Idempotent.

    An empty journal imports everything; a journal in use imports unanswered events and unacknowledged exceptions. A
    journal that an export closed is open again. Raises `JournalError`; then nothing was changed.
    """
    with _open_source(source, journal.code) as other:
        columns = {row[1] for row in other.execute("PRAGMA table_info(events)")}
        extra = ", held, ticked_at" if {"held", "ticked_at"} <= columns else ", 1, NULL"
        extra += ", slip_notices" if "slip_notices" in columns else ", NULL"
        wanted = f"answered_at IS NULL OR ({EXCEPTION})" if "held" in columns else "answered_at IS NULL"
        with journal.writing("Nothing was changed") as connection:
            is_empty = connection.execute("SELECT 1 FROM events LIMIT 1").fetchone() is None
            rows = other.execute(
                f"SELECT {_BASE}{extra} FROM events WHERE {'1' if is_empty else wanted} ORDER BY sequence"  # noqa: S608
            ).fetchall()
            (last,) = other.execute(
                "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'"
            ).fetchone()
            _advance_sequence(connection, last)
            before = _counts(connection)
            connection.executemany(
                f"INSERT OR IGNORE INTO events ({_BASE}, held, ticked_at, slip_notices)"  # noqa: S608
                f" VALUES ({', '.join('?' * 13)})",
                rows,
            )
            connection.execute(
                "UPDATE events SET next_resend_at = ?, held = 1 WHERE answered_at IS NULL AND next_resend_at IS NULL",
                (to_text(now),),
            )
            connection.execute("UPDATE station SET moved_at = NULL, moved_to = NULL, key_check = NULL")
            after = _counts(connection)
    return TransferCounts(after.events - before.events, after.unanswered - before.unanswered)


def _copy(path: Path, part: Path) -> None:
    """Copy the last commit into one file, which is on disk when this returns."""
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))  # a link of another user is not followed
    with contextlib.closing(sqlite3.connect(path)) as read, contextlib.closing(sqlite3.connect(part)) as written:
        read.backup(written)
        written.execute("PRAGMA journal_mode = DELETE")
    with part.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _open_source(source: Path, code: str) -> Iterator[sqlite3.Connection]:
    """The other journal, for reading. Raises `JournalError` when it does not belong to this station."""
    if not source.is_file():
        raise JournalError(f"There is no file {source}. Nothing was changed.")
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(source.resolve()))}?mode=ro", uri=True)) as other:
        try:
            _check(other, source, code)
            yield other
        except sqlite3.Error as error:
            raise JournalError(f"{source} is not a readable journal ({error}). Nothing was changed.") from error


def _check(other: sqlite3.Connection, source: Path, code: str) -> None:
    if other.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("database disk image is malformed")
    if other.execute("PRAGMA user_version").fetchone()[0] > VERSION:
        raise JournalError(f"{source} was written by a newer bookdrop-station. Nothing was changed; update this one.")
    (owner,) = other.execute("SELECT code FROM station").fetchone()
    if owner != code:
        raise JournalError(
            f"{source} is the journal of station {owner}, and this is {code}. Nothing was changed: its events are signed"
            f" by {owner}. Run the command as that station (--code {owner}, with its key)."
        )


def _advance_sequence(connection: sqlite3.Connection, last: int) -> None:
    """Move the next sequence number beyond `last`: a station uses no number twice."""
    if connection.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'events'", (last,)).rowcount == 0:
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", (last,))


def _counts(connection: sqlite3.Connection) -> TransferCounts:
    return TransferCounts(*connection.execute("SELECT count(*), count(*) - count(answered_at) FROM events").fetchone())


def _fsync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
