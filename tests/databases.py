# SPDX-License-Identifier: Apache-2.0
"""Migrated databases: a SQLite file or a PostgreSQL database is migrated once and copied for each test."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url, text

from schemas.database import open_engine
from schemas.migration import migrate
from tests.requirements import skip_or_fail

POSTGRES_URLS = (
    "postgresql+psycopg:///postgres",
    "postgresql+psycopg://postgres@127.0.0.1/postgres",
    "postgresql+psycopg:///test",
)
"""Servers that are tried in turn when BOOKDROP_TEST_POSTGRES_URL names none."""


@contextmanager
def migrated_sqlite_file() -> Iterator[Path]:
    """A migrated SQLite file to copy from."""
    with tempfile.TemporaryDirectory(prefix="bd-") as folder:
        path = Path(folder) / "template.db"
        migrate_database(f"sqlite:///{path}")
        yield path


@contextmanager
def migrated_postgres_template() -> Iterator[tuple[str, str]]:
    """The URL of a server, and the name of a migrated database there to copy from."""
    server = _postgres_server()
    with new_postgres_database(server, "bookdrop_template") as url:
        migrate_database(url)
        name = make_url(url).database
        assert name is not None
        yield server, name


@contextmanager
def postgres_copy(template: tuple[str, str]) -> Iterator[str]:
    """The URL of a new copy of a template."""
    server, name = template
    with new_postgres_database(server, "bookdrop_test", f"TEMPLATE {name}") as url:
        yield url


@contextmanager
def new_postgres_database(server: str, prefix: str, options: str = "") -> Iterator[str]:
    """The URL of a new database on `server`, dropped at the end."""
    name = f"{prefix}_{uuid.uuid4().hex[:10]}"
    admin = _admin(server)
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def migrate_database(url: str) -> None:
    """Create the tables."""
    engine = open_engine(url)
    migrate(engine)
    engine.dispose()


def _postgres_server() -> str:
    """The first server on which this user may create databases."""
    given = os.environ.get("BOOKDROP_TEST_POSTGRES_URL")
    for url in (given,) if given else POSTGRES_URLS:
        try:
            with new_postgres_database(url, "bookdrop_probe"):
                return url
        except Exception:  # noqa: BLE001 - whatever the reason is, this server cannot be used
            continue
    return skip_or_fail("a PostgreSQL server on which databases may be created (BOOKDROP_TEST_POSTGRES_URL)")


def _admin(server: str) -> Engine:
    return create_engine(server, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
