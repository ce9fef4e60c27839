# SPDX-License-Identifier: Apache-2.0
"""Bringing the tables up to date, all or nothing. A module of its own: a worker does not load Alembic."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from schemas.database import READ_ONLY

MIGRATION_LOCK: Final = 7036874417766
"""Number of the advisory lock that whoever migrates holds."""
MIGRATION_LOCK_SECONDS: Final = 3
"""How long a migration waits for a lock. Short: whoever comes after it for the same table waits behind it."""
MIGRATION_TRIES: Final = 5

_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK = "40P01"


class MigrationBusyError(Exception):
    """Somebody held what a migration needs for too long. The text says who, that nothing was changed, what to do."""


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
