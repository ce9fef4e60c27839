# SPDX-License-Identifier: Apache-2.0
"""Check of the settings that keep patrons out of PostgreSQL's log."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, text

from workers.doctor.finding import Finding

WANTED: Final = {
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
"""Settings of deploy/postgresql/log-settings.sql."""


def postgresql_log(connection: Connection) -> Iterator[Finding]:
    """Yield a finding if the server may log rows or parameters of this connection's statements."""
    values = {
        name: connection.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar() for name in WANTED
    }
    others = [f"{name} = {value}" for name, value in values.items() if value != WANTED[name]]
    if others:
        yield Finding(
            "database",
            ok=True,
            message=f"PostgreSQL's log may contain patrons: {', '.join(others)}",
            advice="Run deploy/postgresql/log-settings.sql as a superuser, then restart the workers.",
        )
