# SPDX-License-Identifier: Apache-2.0
"""Engines for SQLite and PostgreSQL, with timeouts on every wait."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url

from schemas.postgresql_session import apply_settings
from schemas.private_files import prepare_sqlite_file

READ_ONLY = {"bookdrop_read_only": True}
"""Execution options of a connection that only reads. On SQLite it does not wait for the write lock."""

LOCK_TIMEOUT_SECONDS: Final = 10
"""Longest wait of a transaction for a lock, in seconds; then it raises."""
STATEMENT_TIMEOUT_SECONDS: Final = 60
"""PostgreSQL: longest duration of a statement, and longest pause in a transaction, in seconds."""


def open_engine(url: str, *, pool_size: int = 2, name: str = "bookdrop", overwrite_deleted: bool = False) -> Engine:
    """Create the engine for `url` (`sqlite:///file` or `postgresql+psycopg://...`); it connects on first use.

    On PostgreSQL the pool keeps `pool_size` connections and opens two more at need; `pg_stat_activity` shows them as
    `name`. Every wait has a limit: for a lock, for an unreachable server, and for a worker that stopped in a transaction.
    Only its owner may read a SQLite file and its side files: each new connection ensures that. With `overwrite_deleted`
    SQLite overwrites what this engine deletes or replaces, at the cost of more writes.
    """
    parsed = make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(
            parsed,
            hide_parameters=True,  # an error's text contains no value of a row, so none gets into a log or Flower
            connect_args={"timeout": LOCK_TIMEOUT_SECONDS, "check_same_thread": False},
        )
        if (file := sqlite_file(parsed)) is not None:
            event.listen(engine, "do_connect", lambda *_: _restrict_sqlite(file))
        event.listen(engine, "connect", _prepare_sqlite)
        if overwrite_deleted:
            event.listen(
                engine, "connect", lambda connection, _: connection.execute("PRAGMA secure_delete = ON").close()
            )
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.get_backend_name() == "postgresql":
        engine = create_engine(
            parsed,
            hide_parameters=True,
            pool_size=pool_size,
            max_overflow=2,
            pool_pre_ping=True,
            pool_timeout=LOCK_TIMEOUT_SECONDS,
            connect_args={
                "connect_timeout": 5,
                "application_name": name,
                # Two ways to detect a lost server: keepalives while waiting, and the timeout of unacknowledged data.
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                "tcp_user_timeout": int(STATEMENT_TIMEOUT_SECONDS * 1000),
            },
        )
        # Not as startup options: PgBouncer refuses them, or ignores them.
        apply_settings(
            engine,
            {
                "lock_timeout": str(LOCK_TIMEOUT_SECONDS * 1000),
                "statement_timeout": str(STATEMENT_TIMEOUT_SECONDS * 1000),
                "idle_in_transaction_session_timeout": str(STATEMENT_TIMEOUT_SECONDS * 1000),
                "timezone": "UTC",
            },
        )
        return engine
    raise ValueError(f"bookdrop stores in SQLite or PostgreSQL, not in {parsed.get_backend_name()}")


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite database; `None` for one in memory, for SQLite's own URIs and for PostgreSQL."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name)


def _restrict_sqlite(file: Path) -> None:
    """Let only the owner read the file. SQLite itself reports a file that cannot be created."""
    with suppress(OSError):
        prepare_sqlite_file(file)


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins a transaction too late; see _begin_sqlite
    with closing(connection.cursor()) as cursor:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={LOCK_TIMEOUT_SECONDS * 1000}",
        ):
            cursor.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at the start. A transaction that reads first can fail at its first write: its snapshot is old."""
    read_only = connection.get_execution_options().get("bookdrop_read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
