# SPDX-License-Identifier: Apache-2.0
"""Migrations of the database, all or nothing. A separate module, because a worker does not load Alembic."""

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

MIGRATION_LOCK_ID: Final = 7036874417766
"""PostgreSQL: number of the advisory lock that a migration holds."""
LOCK_TIMEOUT_SECONDS: Final = 3
"""Longest wait of a migration for a lock. Short, because later transactions on the same table queue behind it."""
MAX_ATTEMPTS: Final = 5

_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK = "40P01"


class MigrationBusyError(Exception):
    """Another transaction held a lock for too long. The text names it, states that nothing changed, and the next step."""


def _alembic(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def migrate(engine: Engine, revision: str = "head", *, pause: Callable[[float], None] = time.sleep) -> None:
    """Migrate the tables to `revision` in one transaction; one process at a time (advisory lock, or SQLite's write lock).

    On PostgreSQL each wait for a lock ends after `LOCK_TIMEOUT_SECONDS`. The transaction is then rolled back, which
    releases its locks, and retried, `MAX_ATTEMPTS` times in all. So no other transaction waits longer behind it. Its
    statements have no time limit. Raises `MigrationBusyError`.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            _migrate(engine, revision)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in {_LOCK_NOT_AVAILABLE, _DEADLOCK}:
                raise
            if attempt == MAX_ATTEMPTS:
                raise MigrationBusyError(_describe_blocker(engine)) from error
            pause(1.0)
        else:
            return


def _migrate(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK_ID})")
        command.upgrade(_alembic(connection), revision)


_BLOCKER = text(
    "SELECT a.pid, a.application_name, a.client_addr, bool_or(l.locktype = 'advisory') AS migrates,"
    " extract(epoch FROM clock_timestamp() - min(a.xact_start))::int AS seconds"
    " FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.granted AND a.pid <> pg_backend_pid() AND a.datname = current_database() AND a.xact_start IS NOT NULL"
    " GROUP BY a.pid, a.application_name, a.client_addr ORDER BY migrates DESC, seconds DESC LIMIT 1"
)


def _describe_blocker(engine: Engine) -> str:
    """Text for the operator about the longest transaction that holds locks now; another migration comes first."""
    with engine.connect() as connection:
        blocker = connection.execute(_BLOCKER).one_or_none()
    if blocker is None:
        return (
            f"Other transactions held locks on the tables at each of {MAX_ATTEMPTS} attempts. Nothing was changed."
            " Run the migration again at a quieter time."
        )
    process = f"process {blocker.pid} of the database ({blocker.application_name or 'no name'}"
    process += f" at {blocker.client_addr})" if blocker.client_addr else ")"
    if blocker.migrates:
        return (
            f"Another migration is running: {process}, for {blocker.seconds} s. Nothing was changed."
            " Wait until it has ended, then run this again."
        )
    return (
        f"A table is in use: {process} has had a transaction open for {blocker.seconds} s. Nothing was changed. Wait until"
        f" it ends, or end it with SELECT pg_terminate_backend({blocker.pid}), then run this again."
    )


def revisions(engine: Engine) -> tuple[str | None, str | None]:
    """The revision of the tables, and the one that this version of bookdrop needs."""
    with engine.connect().execution_options(**READ_ONLY) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, ScriptDirectory.from_config(_alembic()).get_current_head()
