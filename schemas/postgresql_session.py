# SPDX-License-Identifier: Apache-2.0
"""Session settings of PostgreSQL connections, also of those through a connection pooler such as PgBouncer.

A direct connection is a session of the server: settings and prepared statements last as long as it does. A pooler in
transaction mode gives each transaction any one of its sessions. There, settings apply to one transaction, and no
statement is prepared.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Engine, event

_POOLED: Final = "bookdrop_pooled"


def apply_settings(engine: Engine, settings: Mapping[str, str]) -> None:
    """Apply `settings` of PostgreSQL to every transaction of `engine`.

    A new connection compares the process id that it was given at login with the one that a statement returns. They
    differ when a pooler is between. Then each transaction begins with `SET LOCAL`, in the round trip of its `BEGIN`.
    On a direct connection the same round trip sets the settings of the session. `settings` are trusted: a value with a
    quotation mark is not quoted.
    """
    begin = "; ".join(["BEGIN", *(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())])

    def connected(connection: Any, record: Any) -> None:
        # Outside a transaction, so that the settings survive it, and that `begun` can send BEGIN with the settings.
        connection.autocommit = True
        values = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in settings.items())
        server_process = connection.info.backend_pid
        direct = connection.execute(f"SELECT {values} WHERE pg_backend_pid() = {server_process}").fetchone()
        record.info[_POOLED] = direct is None
        if direct is None:
            connection.prepare_threshold = None
        else:
            connection.autocommit = False

    def begun(connection: Connection) -> None:
        if connection.info.get(_POOLED):
            connection.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


def is_pooled(connection: Connection) -> bool:
    """True if a connection pooler is between this connection and PostgreSQL. Always false on SQLite."""
    return bool(connection.info.get(_POOLED, False))
