# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL in full: migrations that hold nobody up, sweeps that wait for nobody, conflicts, and lost connections."""

import socket
import threading
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import event, func, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import sessionmaker

from schemas import database, migration
from schemas.database import open_engine
from schemas.migration import MigrationBusyError, migrate, revisions
from schemas.models import InboxEntry, OutboxEntry, Patron, PrintJob, RequestEvent, UndoPatronLink
from tasks.context import Context
from tasks.events.processing import process
from tasks.outbox.relay import sweep
from tasks.printing.dispatch import dispatch_due_jobs
from tasks.privacy.purge import purge
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tasks.unit_of_work import UnitOfWork, retry_on_conflict
from tests.library import Library
from tests.task_context import RecordingPublisher
from workers.app import database_connections
from workers.cli import main

pytestmark = pytest.mark.databases("postgres")

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
QUEUE = "reply.main-desk-1"


@pytest.fixture
def old(engine, monkeypatch):
    """The same database with the tables of the first release; migrations wait a short time only."""
    monkeypatch.setattr(migration, "LOCK_TIMEOUT_SECONDS", 0.1)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    migrate(engine, "0002")
    return engine


@contextmanager
def held(engine, statement):
    """A transaction of somebody else that holds what `statement` locks."""
    with engine.connect() as other, other.begin():
        other.execute(text(statement))
        yield other


# Migrations


def test_a_migration_gives_way_to_a_long_transaction(old):
    """It waits a moment for each try, then gives up: nothing is changed, and a person hears who is in the way."""
    pauses: list[float] = []

    with (
        held(old, "LOCK TABLE printers IN ACCESS SHARE MODE") as other,
        pytest.raises(MigrationBusyError) as caught,
    ):
        pid = other.execute(text("SELECT pg_backend_pid()")).scalar_one()
        migrate(old, pause=pauses.append)

    assert revisions(old)[0] == "0002"
    assert f"pg_terminate_backend({pid})" in str(caught.value)
    assert "Nothing was changed" in str(caught.value)
    assert len(pauses) == migration.MAX_ATTEMPTS - 1


def test_a_migration_is_tried_again(old):
    """A transaction that ends meanwhile is no reason to give up."""
    with old.connect() as other:
        other.execute(text("LOCK TABLE printers IN ACCESS SHARE MODE"))
        migrate(old, pause=lambda _: other.rollback())

    current, wanted = revisions(old)
    assert current == wanted


def test_two_migrations_do_not_run_at_once(old):
    """The second one finds the advisory lock taken, and says so."""
    lock = f"SELECT pg_advisory_xact_lock({migration.MIGRATION_LOCK_ID})"

    with held(old, lock), pytest.raises(MigrationBusyError, match="Another migration is running"):
        migrate(old, pause=lambda _: None)

    assert revisions(old)[0] == "0002"


def test_the_command_says_who_is_in_the_way(old, monkeypatch):
    """`bookdrop migrate` ends with 1 and the words, without a trace."""
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", old.url.render_as_string(hide_password=False))
    monkeypatch.setattr(migration, "MAX_ATTEMPTS", 1)

    with held(old, "LOCK TABLE printers IN ACCESS SHARE MODE"):
        result = CliRunner().invoke(main, ["migrate"])

    assert result.exit_code == 1
    assert "A table is in use" in result.output
    assert "Traceback" not in result.output


def test_a_long_migration_is_not_cut_off(old):
    """The limits of a worker's statement are not a migration's; its wait for a lock is shorter than a worker's."""
    seen = set()

    @event.listens_for(old, "after_cursor_execute")
    def look(connection, _cursor, statement, *_):
        if statement.lstrip().startswith("ALTER TABLE"):
            with closing(connection.connection.cursor()) as cursor:
                for name in ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"):
                    cursor.execute(f"SHOW {name}")
                    seen.add((name, cursor.fetchone()[0]))

    migrate(old)

    assert seen == {
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("lock_timeout", "100ms"),
    }


# Connections


def test_nothing_waits_for_ever(engine):
    """Not for a lock, not in a statement, not in a transaction that its owner has forgotten."""
    with engine.connect() as connection:
        limits = {
            name: connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "TimeZone")
        }

    assert limits == {
        "lock_timeout": "10s",
        "statement_timeout": "1min",
        "idle_in_transaction_session_timeout": "1min",
        "TimeZone": "UTC",
    }


def test_a_frozen_worker_lets_go(engine, postgres_url, monkeypatch):
    """What a worker that does nothing in its transaction has locked, others get."""
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_SECONDS", 0.2)
    frozen = open_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO patrons (id, number, name) VALUES (1, 'P1', 'Test Reader 1')"))

    with suppress(DBAPIError), frozen.connect() as asleep, asleep.begin():
        asleep.execute(text("SELECT 1 FROM patrons FOR UPDATE"))
        with engine.begin() as connection:
            got = connection.execute(text("SELECT number FROM patrons FOR UPDATE")).scalar_one()
    frozen.dispose()

    assert got == "P1"


@pytest.mark.parametrize(
    ("pool", "concurrency", "connections"),
    [
        ("prefork", 8, 2),
        ("celery.concurrency.prefork", 8, 2),
        ("solo", 1, 2),
        ("celery.concurrency.thread", 2, 3),
        ("threads", 6, 7),
    ],
)
def test_a_process_keeps_as_many_connections_as_it_has_work_for(pool, concurrency, connections):
    """One for each thread that works, one to tidy up: a pool of processes has one thread in each."""
    assert database_connections(pool, concurrency) == connections


def test_a_connection_says_whose_it_is(postgres_url):
    """The server's list of connections names the role."""
    engine = open_engine(postgres_url, name="bookdrop-returns")

    with engine.connect() as connection:
        name = connection.execute(
            text("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        ).scalar_one()
    engine.dispose()

    assert name == "bookdrop-returns"


# Sweeps: a row in somebody's hand is skipped; waiting for it would end in an error after ten seconds


def test_the_outbox_is_swept_around_a_row_in_hand(engine):
    """The other rows go out, the one that is locked stays."""
    sent = RecordingPublisher()
    context = Context(sessionmaker(engine), lambda: NOW + timedelta(minutes=1), sent, "a test")
    with UnitOfWork(context.sessions, NOW) as uow:
        for body in ('"one"', '"two"', '"three"'):
            uow.enqueue(QUEUE, body)

    with held(engine, "SELECT 1 FROM outbox WHERE body = '\"two\"' FOR UPDATE"):
        sweep(context)

    assert [entry.body for entry in sent.messages] == ['"one"', '"three"']


def test_slips_are_ordered_around_a_job_in_hand(engine, library, create_print_job, context, clock):
    """The sweep of print jobs orders those that nobody has locked."""
    with context.sessions.begin() as session:
        create_print_job(), create_print_job()
        session.execute(text("UPDATE print_jobs SET printer_id = NULL"))
        [first, second] = session.scalars(select(PrintJob.id).order_by(PrintJob.id)).all()
    clock.now += timedelta(hours=1)

    with held(engine, f"SELECT 1 FROM print_jobs WHERE id = '{first}' FOR UPDATE"):
        ordered = dispatch_due_jobs(context)

    assert list(ordered) == [second]


def test_links_are_purged_around_a_row_in_hand(engine, create_print_job, context):
    """Neither a Return nor a second sweep is waited for: what one of them has in hand is left to the next sweep."""
    create_print_job(), create_print_job()
    with context.sessions() as session:
        first, *others = session.scalars(select(UndoPatronLink.id).order_by(UndoPatronLink.id)).all()

    with (
        held(engine, f"SELECT 1 FROM set_aside_links WHERE id = {first} FOR UPDATE"),
        context.sessions.begin() as session,
    ):
        purge(session, context.now() + timedelta(hours=1))

    with context.sessions() as session:
        left = session.scalars(select(UndoPatronLink.id)).all()
    assert others
    assert left == [first]


# Conflicts


def two_patrons(engine):
    with sessionmaker(engine).begin() as session:
        session.add_all(
            [Patron(id=1, number="P1", name="Test Reader 1"), Patron(id=2, number="P2", name="Test Reader 2")]
        )


def test_a_deadlock_is_run_again(engine):
    """Two transactions that wait for each other: one is told to go back, and does its work after the other."""
    two_patrons(engine)
    both = threading.Barrier(2)
    tries = []

    def work(first, second):
        tries.append(first)
        with UnitOfWork(sessionmaker(engine), NOW) as uow:
            uow.session.execute(text("UPDATE patrons SET name = name || '!' WHERE id = :id"), {"id": first})
            if len(tries) <= 2:
                both.wait(10)
            uow.session.execute(text("UPDATE patrons SET name = name || '!' WHERE id = :id"), {"id": second})

    threads = [
        threading.Thread(target=retry_on_conflict, args=(lambda pair=pair: work(*pair),)) for pair in ((1, 2), (2, 1))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with engine.connect() as connection:
        names = connection.execute(text("SELECT name FROM patrons ORDER BY id")).scalars().all()
    assert names == ["Test Reader 1!!", "Test Reader 2!!"]
    assert len(tries) == 3


def test_a_serialization_failure_is_run_again(engine):
    """A row that another transaction changed meanwhile: decided anew, on what is there now."""
    two_patrons(engine)
    strict = sessionmaker(engine.execution_options(isolation_level="REPEATABLE READ"))
    tries = []

    def work():
        tries.append(1)
        with UnitOfWork(strict, NOW) as uow:
            name = uow.session.execute(text("SELECT name FROM patrons WHERE id = 1")).scalar_one()
            if len(tries) == 1:
                with engine.begin() as other:
                    other.execute(text("UPDATE patrons SET name = 'Changed' WHERE id = 1"))
            uow.session.execute(text("UPDATE patrons SET name = :name WHERE id = 1"), {"name": name + "!"})

    retry_on_conflict(work)

    with engine.connect() as connection:
        assert connection.execute(text("SELECT name FROM patrons WHERE id = 1")).scalar_one() == "Changed!"
    assert len(tries) == 2


# Connections that are lost while a Return is committed


class Cut:
    """A way to the server that breaks when the server has committed, and before the client hears of it."""

    def __init__(self, url):
        with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
            self._host, self._port, self._user = connection.info.host, connection.info.port, connection.info.user
        self.is_armed = False
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends = []
        self.url = url.set(
            host="127.0.0.1",
            port=self._listener.getsockname()[1],
            username=self._user,
            query={"sslmode": "disable", "gssencmode": "disable"},
        ).render_as_string(hide_password=False)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                is_path = self._host.startswith("/")
                far = socket.socket(socket.AF_UNIX if is_path else socket.AF_INET)
                far.connect(f"{self._host}/.s.PGSQL.{self._port}" if is_path else (self._host, self._port))
                self._ends += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, target, far), daemon=True).start()

    def _pass_on(self, source, target, far):
        with suppress(OSError):
            while data := source.recv(65536):
                if source is far and self.is_armed and b"COMMIT\0" in data:
                    self.is_armed = False
                    self.cuts += 1
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def terminate_at_commit(engine, admin):
    """End the session at the server in the moment before its next commit."""

    @event.listens_for(engine, "commit", once=True)
    def end(connection):
        pid = connection.connection.driver_connection.info.backend_pid
        with admin.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})


def answers(library, through, barcode):
    """Do one scan through `through`, twice; gives what was published for each."""
    payload, sent = library.scan(barcode), RecordingPublisher()
    context = Context(sessionmaker(through, expire_on_commit=False), lambda: datetime.now(UTC), sent, "a test")
    for _ in range(2):
        process([Received(payload, QUEUE)], RETURN_HANDLER, context)
    return [entry.body for entry in sent.messages if entry.task is None]


def effects(engine):
    with engine.connect() as connection:
        return [
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (InboxEntry, RequestEvent, PrintJob)
        ]


def test_a_session_ended_before_its_commit(engine, postgres_url, tmp_path):
    """Nothing was kept, so it is done again at once: answered, with one effect, and the same answer the next time."""
    library = Library(engine, tmp_path / "spool").open()
    _, [barcode] = library.request()
    through = open_engine(postgres_url)
    terminate_at_commit(through, engine)

    [first, again] = answers(library, through, barcode)
    through.dispose()

    assert first == again
    assert effects(engine) == [1, 1, 1]


def test_a_connection_cut_after_its_commit(engine, tmp_path):
    """Everything was kept and nobody heard of it: the inbox tells the second run, which gives the stored answer."""
    library = Library(engine, tmp_path / "spool").open()
    _, [barcode] = library.request()
    cut = Cut(make_url(engine.url))
    through = open_engine(cut.url)
    with through.connect():  # what a new connection asks is not what is cut
        pass
    cut.is_armed = True

    [first, again] = answers(library, through, barcode)
    through.dispose()
    cut.close()

    assert cut.cuts == 1
    assert first == again
    assert effects(engine) == [1, 1, 1]
    with engine.connect() as connection:
        assert connection.execute(select(InboxEntry.reply)).scalar_one() == first
        assert connection.execute(select(func.count()).select_from(OutboxEntry)).scalar_one() >= 1
