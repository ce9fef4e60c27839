# SPDX-License-Identifier: Apache-2.0
"""Opening the database, and bringing its tables up to date. SQLite and PostgreSQL, the same code."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError

READ_ONLY = {"bookdrop_read_only": True}
"""Execution options of a connection that only reads: on SQLite it does not wait for the one writer."""

BUSY_SECONDS: Final = 10
"""How long a transaction waits for a lock before it says so, in seconds."""
STATEMENT_SECONDS: Final = 60
"""PostgreSQL: the longest that one statement takes, in seconds; and how long a transaction may do nothing."""

MIGRATION_LOCK: Final = 7036874417766
"""Number of the advisory lock that whoever migrates holds."""
MIGRATION_LOCK_SECONDS: Final = 3
"""How long a migration waits for a lock. Short: whoever comes after it for the same table waits behind it."""
MIGRATION_TRIES: Final = 5

_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK = "40P01"


class MigrationBusyError(Exception):
    """Somebody held what a migration needs for too long. The text says who, that nothing was changed, what to do."""


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


def _alembic(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def migrate(engine: Engine, revision: str = "head", *, pause: Callable[[float], None] = time.sleep) -> None:
    """Bring the tables to `revision`; one process at a time (an advisory lock, or SQLite's write lock).

    All or nothing: it is one transaction. On PostgreSQL it waits for each lock `MIGRATION_LOCK_SECONDS`, lets go of
    everything, and tries again, `MIGRATION_TRIES` times in all: nobody else waits longer behind it. Its statements may
    take as long as they take. Raises `MigrationBusyError`.
    """
    for attempt in range(1, MIGRATION_TRIES + 1):
        try:
            _migrate(engine, revision)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in {_LOCK_NOT_AVAILABLE, _DEADLOCK}:
                raise
            if attempt == MIGRATION_TRIES:
                raise MigrationBusyError(_who_is_in_the_way(engine)) from error
            pause(1.0)
        else:
            return


def _migrate(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{MIGRATION_LOCK_SECONDS}s'")
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        command.upgrade(_alembic(connection), revision)


_OTHERS = text(
    "SELECT a.pid, a.application_name, a.client_addr, bool_or(l.locktype = 'advisory') AS migrates,"
    " extract(epoch FROM clock_timestamp() - min(a.xact_start))::int AS seconds"
    " FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.granted AND a.pid <> pg_backend_pid() AND a.datname = current_database() AND a.xact_start IS NOT NULL"
    " GROUP BY a.pid, a.application_name, a.client_addr ORDER BY migrates DESC, seconds DESC LIMIT 1"
)


def _who_is_in_the_way(engine: Engine) -> str:
    """What a person is told: who holds the longest transaction now, for which a migration would wait."""
    with engine.connect() as connection:
        other = connection.execute(_OTHERS).one_or_none()
    if other is None:
        return (
            f"Tables were in use by others each of the {MIGRATION_TRIES} times it was tried. Nothing was changed."
            " Run it again at a quieter time."
        )
    who = f"process {other.pid} of the database ({other.application_name or 'no name'}"
    who += f" at {other.client_addr})" if other.client_addr else ")"
    if other.migrates:
        return (
            f"Another migration is running: {who}, for {other.seconds} s. Nothing was changed."
            " Wait until it has ended, then run this again."
        )
    return (
        f"A table is in use: {who} has had a transaction open for {other.seconds} s. Nothing was changed. Wait for it,"
        f" or end it with SELECT pg_terminate_backend({other.pid}), then run this again."
    )


def revisions(engine: Engine) -> tuple[str | None, str | None]:
    """The revision the tables have, and the one this program wants."""
    with engine.connect().execution_options(**READ_ONLY) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, ScriptDirectory.from_config(_alembic()).get_current_head()
