# SPDX-License-Identifier: Apache-2.0
"""Opening the database, and bringing its tables up to date. SQLite and PostgreSQL, the same code."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url

READ_ONLY = {"bookdrop_read_only": True}
"""Execution options of a connection that only reads: on SQLite it does not wait for the one writer."""

BUSY_SECONDS = 10
"""How long a transaction waits for a lock before it says so, in seconds."""


def open_engine(url: str, *, pool_size: int = 2) -> Engine:
    """Make the engine for `url` (`sqlite:///file` or `postgresql+psycopg://...`); connects only when used."""
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
                "options": f"-c lock_timeout={BUSY_SECONDS * 1000} -c statement_timeout=60000 -c timezone=UTC",
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


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the tables to `revision`; one process at a time (an advisory lock, or SQLite's write lock)."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7036874417766)")
        command.upgrade(_alembic(connection), revision)


def revisions(engine: Engine) -> tuple[str | None, str | None]:
    """The revision the tables have, and the one this program wants."""
    with engine.connect().execution_options(**READ_ONLY) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, ScriptDirectory.from_config(_alembic()).get_current_head()
