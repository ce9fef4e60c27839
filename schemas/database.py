# SPDX-License-Identifier: Apache-2.0
"""Opening the database. SQLite and PostgreSQL, the same code."""

import sqlite3
from contextlib import closing
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url

READ_ONLY = {"bookdrop_read_only": True}
"""Execution options of a connection that only reads: on SQLite it does not wait for the one writer."""

BUSY_SECONDS: Final = 10
"""How long a transaction waits for a lock before it says so, in seconds."""
STATEMENT_SECONDS: Final = 60
"""PostgreSQL: the longest that one statement takes, in seconds; and how long a transaction may do nothing."""


def open_engine(url: str, *, pool_size: int = 2, name: str = "bookdrop") -> Engine:
    """Make the engine for `url` (`sqlite:///file` or `postgresql+psycopg://...`); connects only when used.

    PostgreSQL keeps `pool_size` connections, which `pg_stat_activity` shows as `name`, and two more at need. No
    statement waits for ever: not for a lock, not for a server that is gone, and not for a worker that froze in a
    transaction.
    """
    parsed = make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(
            parsed,
            hide_parameters=True,  # no value of a row in an error's words, so none in a log or in Flower
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.get_backend_name() == "postgresql":
        return create_engine(
            parsed,
            hide_parameters=True,
            pool_size=pool_size,
            max_overflow=2,
            pool_pre_ping=True,
            pool_timeout=BUSY_SECONDS,
            connect_args={
                "connect_timeout": 5,
                "application_name": name,
                # A server that is cut off without a word is found out: by asking while waiting, and by what was sent.
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                "tcp_user_timeout": STATEMENT_SECONDS * 1000,
                "options": f"-c lock_timeout={BUSY_SECONDS * 1000} -c statement_timeout={STATEMENT_SECONDS * 1000}"
                f" -c idle_in_transaction_session_timeout={STATEMENT_SECONDS * 1000} -c timezone=UTC",
            },
        )
    raise ValueError(f"bookdrop stores in SQLite or PostgreSQL, not in {parsed.get_backend_name()}")


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late; see _begin_sqlite
    with closing(connection.cursor()) as cursor:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_SECONDS * 1000}",
        ):
            cursor.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at the start, so that no transaction finds out at its first write that it read too early."""
    read_only = connection.get_execution_options().get("bookdrop_read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
