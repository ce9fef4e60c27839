# SPDX-License-Identifier: Apache-2.0
"""Check of a connection pooler, such as PgBouncer, between this program and PostgreSQL."""

from collections.abc import Iterator

from sqlalchemy import Connection, text

from schemas.database import LOCK_TIMEOUT_SECONDS
from schemas.postgresql_session import is_pooled
from workers.doctor.finding import Finding


def connection_pooler(connection: Connection) -> Iterator[Finding]:
    """Yield the findings about a pooler: that there is one, and if the timeouts apply to a transaction through it."""
    wanted = LOCK_TIMEOUT_SECONDS * 1000
    found = connection.execute(text("SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout'")).scalar_one()
    if is_pooled(connection):
        yield Finding(
            "database",
            ok=True,
            message="connected through a connection pooler, such as PgBouncer: each transaction sets its own timeouts,"
            " and no statement is prepared",
        )
    if found != wanted:
        yield Finding(
            "database",
            ok=False,
            message=f"lock_timeout is {found} ms in a transaction, and bookdrop sets {wanted} ms",
            advice="A proxy before PostgreSQL changes the settings of a session. Use PgBouncer, or connect directly.",
        )
