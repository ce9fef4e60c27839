# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL: migrations that block no worker, sweeps that skip locked rows, conflicts, and lost connections."""

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
def first_release(engine, monkeypatch):
    """The database with the tables of the first release; migrations wait a short time only."""
    monkeypatch.setattr(migration, "LOCK_TIMEOUT_SECONDS", 0.1)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    migrate(engine, "0002")
    return engine


@contextmanager
def locked(engine, statement):
    """A transaction of another process that holds the locks of `statement`."""
    with engine.connect() as other, other.begin():
        other.execute(text(statement))
        yield other


# Migrations


def test_migration_gives_up_behind_a_long_transaction(first_release):
    """It waits briefly at each try, then gives up: nothing is changed, and the error names the blocking session."""
    pauses: list[float] = []

    with (
        locked(first_release, "LOCK TABLE printers IN ACCESS SHARE MODE") as other,
        pytest.raises(MigrationBusyError) as caught,
    ):
        pid = other.execute(text("SELECT pg_backend_pid()")).scalar_one()
        migrate(first_release, pause=pauses.append)

    assert revisions(first_release)[0] == "0002"
    assert f"pg_terminate_backend({pid})" in str(caught.value)
    assert "Nothing was changed" in str(caught.value)
    assert len(pauses) == migration.MAX_ATTEMPTS - 1


def test_migration_is_retried_after_a_lock_timeout(first_release):
    """A transaction that ends meanwhile does not make it give up."""
    with first_release.connect() as other:
        other.execute(text("LOCK TABLE printers IN ACCESS SHARE MODE"))
        migrate(first_release, pause=lambda _: other.rollback())

    current, wanted = revisions(first_release)
    assert current == wanted


def test_second_migration_is_rejected(first_release):
    """The advisory lock is held, and the error states that another migration is running."""
    lock = f"SELECT pg_advisory_xact_lock({migration.MIGRATION_LOCK_ID})"

    with locked(first_release, lock), pytest.raises(MigrationBusyError, match="Another migration is running"):
        migrate(first_release, pause=lambda _: None)

    assert revisions(first_release)[0] == "0002"


def test_migrate_command_names_the_blocking_session(first_release, monkeypatch):
    """`bookdrop migrate` ends with code 1 and the cause, without a traceback."""
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", first_release.url.render_as_string(hide_password=False))
    monkeypatch.setattr(migration, "MAX_ATTEMPTS", 1)

    with locked(first_release, "LOCK TABLE printers IN ACCESS SHARE MODE"):
        result = CliRunner().invoke(main, ["migrate"])

    assert result.exit_code == 1
    assert "A table is in use" in result.output
    assert "Traceback" not in result.output


def test_migration_has_no_statement_timeout(first_release):
    """The timeouts of a worker's statements do not apply to a migration; its lock timeout is shorter than a worker's."""
    seen = set()

    @event.listens_for(first_release, "after_cursor_execute")
    def look(connection, _cursor, statement, *_):
        if statement.lstrip().startswith("ALTER TABLE"):
            with closing(connection.connection.cursor()) as cursor:
                for name in ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"):
                    cursor.execute(f"SHOW {name}")
                    seen.add((name, cursor.fetchone()[0]))

    migrate(first_release)

    assert seen == {
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("lock_timeout", "100ms"),
    }


# Connections


def test_connection_has_timeouts(engine):
    """For a lock, for a statement, and for a transaction without activity."""
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


def test_locks_of_a_hanging_worker_are_released(engine, postgres_url, monkeypatch):
    """Other transactions get the locks of a worker whose transaction has no activity."""
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_SECONDS", 0.2)
    frozen = open_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO patrons (id, number, name) VALUES (1, 'P1', 'Test Patron 1')"))

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
def test_pool_size_follows_the_concurrency(pool, concurrency, connections):
    """One for each thread and one for maintenance; each process of a process pool has one thread."""
    assert database_connections(pool, concurrency) == connections


def test_connection_has_the_role_as_application_name(postgres_url):
    """The server's list of connections names the role."""
    engine = open_engine(postgres_url, name="bookdrop-returns")

    with engine.connect() as connection:
        name = connection.execute(
            text("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        ).scalar_one()
    engine.dispose()

    assert name == "bookdrop-returns"


# Sweeps skip a locked row; waiting for it would end in an error after ten seconds


def test_outbox_sweep_skips_a_locked_row(engine):
    """The other rows are published, the locked one stays."""
    sent = RecordingPublisher()
    context = Context(sessionmaker(engine), lambda: NOW + timedelta(minutes=1), sent, "a test")
    with UnitOfWork(context.sessions, NOW) as uow:
        for body in ('"one"', '"two"', '"three"'):
            uow.enqueue(QUEUE, body)

    with locked(engine, "SELECT 1 FROM outbox WHERE body = '\"two\"' FOR UPDATE"):
        sweep(context)

    assert [entry.body for entry in sent.messages] == ['"one"', '"three"']


def test_print_sweep_skips_a_locked_job(engine, library, create_print_job, context, clock):
    """The sweep dispatches the print jobs that no other transaction has locked."""
    with context.sessions.begin() as session:
        create_print_job(), create_print_job()
        session.execute(text("UPDATE print_jobs SET printer_id = NULL"))
        [first, second] = session.scalars(select(PrintJob.id).order_by(PrintJob.id)).all()
    clock.now += timedelta(hours=1)

    with locked(engine, f"SELECT 1 FROM print_jobs WHERE id = '{first}' FOR UPDATE"):
        ordered = dispatch_due_jobs(context)

    assert list(ordered) == [second]


def test_purge_skips_a_locked_row(engine, create_print_job, context):
    """It waits for no Return and no second sweep: a locked row is left to the next sweep."""
    create_print_job(), create_print_job()
    with context.sessions() as session:
        first, *others = session.scalars(select(UndoPatronLink.id).order_by(UndoPatronLink.id)).all()

    with (
        locked(engine, f"SELECT 1 FROM set_aside_links WHERE id = {first} FOR UPDATE"),
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
            [Patron(id=1, number="P1", name="Test Patron 1"), Patron(id=2, number="P2", name="Test Patron 2")]
        )


def test_deadlock_is_retried(engine):
    """Of two transactions that wait for each other, one fails and is retried after the other."""
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
    assert names == ["Test Patron 1!!", "Test Patron 2!!"]
    assert len(tries) == 3


def test_serialization_failure_is_retried(engine):
    """A row changed by another transaction: the transaction is retried with the present row."""
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


class CommitCuttingProxy:
    """A proxy that closes the connection when the server has committed, before the client receives the confirmation."""

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
    """Terminate the session on the server immediately before its next commit."""

    @event.listens_for(engine, "commit", once=True)
    def end(connection):
        pid = connection.connection.driver_connection.info.backend_pid
        with admin.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})


def process_twice(library, through, barcode):
    """Process one scan through `through` twice; return the replies published each time."""
    payload, sent = library.scan(barcode), RecordingPublisher()
    context = Context(sessionmaker(through, expire_on_commit=False), lambda: datetime.now(UTC), sent, "a test")
    for _ in range(2):
        process([Received(payload, QUEUE)], RETURN_HANDLER, context)
    return [entry.body for entry in sent.messages if entry.task is None]


def effects(engine):
    """Number of rows in inbox, history and print jobs."""
    with engine.connect() as connection:
        return [
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (InboxEntry, RequestEvent, PrintJob)
        ]


def test_session_terminated_before_its_commit_is_retried(engine, postgres_url, tmp_path):
    """Nothing was stored, so the event is processed again at once: one effect, and the same reply the next time."""
    library = Library(engine, tmp_path / "spool").open()
    _, [barcode] = library.request()
    through = open_engine(postgres_url)
    terminate_at_commit(through, engine)

    [first, again] = process_twice(library, through, barcode)
    through.dispose()

    assert first == again
    assert effects(engine) == [1, 1, 1]


def test_connection_cut_after_its_commit_returns_the_stored_reply(engine, tmp_path):
    """Everything was stored: the retry finds the event in the inbox, and returns the stored reply."""
    library = Library(engine, tmp_path / "spool").open()
    _, [barcode] = library.request()
    cut = CommitCuttingProxy(make_url(engine.url))
    through = open_engine(cut.url)
    with through.connect():  # the statements of a new connection are not cut
        pass
    cut.is_armed = True

    [first, again] = process_twice(library, through, barcode)
    through.dispose()
    cut.close()

    assert cut.cuts == 1
    assert first == again
    assert effects(engine) == [1, 1, 1]
    with engine.connect() as connection:
        assert connection.execute(select(InboxEntry.reply)).scalar_one() == first
        assert connection.execute(select(func.count()).select_from(OutboxEntry)).scalar_one() >= 1
