# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL through PgBouncer in transaction mode: settings of transactions, prepared statements, and the whole path."""

import csv
import json
import threading

import psycopg
import pytest
from sqlalchemy import func, make_url, select, text

from schemas import migration
from schemas.database import open_engine
from schemas.migration import MigrationBusyError, migrate, revisions
from schemas.models import PrintJob, RequestEvent
from schemas.postgresql_session import is_pooled
from schemas.print_jobs import PrintState
from tests.databases import new_postgres_database
from tests.library import LENDER
from tests.pgbouncer import pgbouncer
from tests.polling import wait_until

pytestmark = pytest.mark.databases("pgbouncer")

TIMEOUTS = {
    "lock_timeout": "10s",
    "statement_timeout": "1min",
    "idle_in_transaction_session_timeout": "1min",
    "TimeZone": "UTC",
}


def settings_of(connection):
    """The session settings in a transaction."""
    return {name: connection.execute(text(f"SHOW {name}")).scalar_one() for name in TIMEOUTS}


@pytest.fixture
def direct_engine(pooled_server, pgbouncer_url):
    """The same database without PgBouncer."""
    server, _, _ = pooled_server
    engine = open_engine(server.url_of("postgres", make_url(pgbouncer_url).database or ""))
    yield engine
    engine.dispose()


def test_each_transaction_has_timeouts_and_leaves_none_behind(engine, pgbouncer_url):
    """The settings apply to a transaction; a server connection that PgBouncer gives to another client has none of them."""
    found = []

    for _ in range(3):
        with engine.connect() as connection:
            found.append(settings_of(connection))
    plain = pgbouncer_url.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True, prepare_threshold=None) as other:
        left = [str(other.execute(f"SHOW {name}").fetchall()[0][0]) for name in list(TIMEOUTS)[:3]]

    assert found == [TIMEOUTS] * 3
    assert left == ["0", "0", "0"]


def test_no_statement_is_prepared_through_a_pooler(engine):
    """A statement that runs often stays unprepared: the next transaction may get another server connection."""
    for _ in range(12):
        with engine.begin() as connection:  # a rollback would discard prepared statements
            connection.execute(select(RequestEvent.id).where(RequestEvent.id == 1)).all()

    with engine.connect() as connection:
        assert is_pooled(connection)
        assert connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one() == 0


def test_direct_connection_is_a_session_with_prepared_statements(direct_engine):
    """Without a pooler the settings belong to the session, and statements that run often are prepared."""
    for _ in range(12):
        with direct_engine.begin() as connection:  # a rollback would discard prepared statements
            connection.execute(select(RequestEvent.id).where(RequestEvent.id == 1)).all()

    with direct_engine.connect() as connection:
        assert not is_pooled(connection)
        assert settings_of(connection) == TIMEOUTS
        assert connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one() > 0


@pytest.mark.parametrize(
    "settings", [{"pool_mode": "session"}, {"ignore_startup_parameters": "options"}], ids=["session", "ignores-options"]
)
def test_pooler_is_recognised_in_other_configurations(pooled_server, pgbouncer_url, settings):
    """Session mode, and a PgBouncer that ignores startup options, in which the timeouts were lost."""
    server, _, _ = pooled_server

    with pgbouncer(f"host={server.folder}", **settings) as pooler:
        engine = open_engine(pooler.url_of(make_url(pgbouncer_url).database or ""))
        with engine.connect() as connection:
            found = is_pooled(connection), settings_of(connection)
        engine.dispose()

    assert found == (True, TIMEOUTS)


def test_transactions_share_fewer_server_connections(pooled_server, pgbouncer_url, direct_engine):
    """Twelve clients with open connections run transactions on two server connections; no update is lost."""
    server, _, _ = pooled_server
    with direct_engine.begin() as connection:
        connection.execute(text("CREATE TABLE counter (value int)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))
    errors = []

    with pgbouncer(f"host={server.folder}", default_pool_size="2") as pooler:
        engines = [open_engine(pooler.url_of(make_url(pgbouncer_url).database or "")) for _ in range(12)]

        def count(engine):
            try:
                for _ in range(20):
                    with engine.begin() as connection:
                        value = connection.execute(text("SELECT value FROM counter FOR UPDATE")).scalar_one()
                        connection.execute(text("UPDATE counter SET value = :value"), {"value": value + 1})
            except Exception as error:  # noqa: BLE001 - shown by the assertion
                errors.append(error)

        threads = [threading.Thread(target=count, args=(engine,)) for engine in engines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pools = [pool for pool in pooler.ask("SHOW POOLS") if pool["database"] == make_url(pgbouncer_url).database]
        for engine in engines:
            engine.dispose()

    assert errors == []
    with direct_engine.connect() as connection:
        assert connection.execute(text("SELECT value FROM counter")).scalar_one() == 240
    assert [pool["pool_mode"] for pool in pools] == ["transaction"]
    assert sum(pool["sv_active"] + pool["sv_idle"] + pool["sv_used"] for pool in pools) <= 2


def test_database_is_migrated_through_a_pooler(pooled_server, monkeypatch):
    """Tables are created in one transaction, and a second migration is refused while the first one holds its lock."""
    server, pooler, _ = pooled_server
    monkeypatch.setattr(migration, "LOCK_TIMEOUT_SECONDS", 0.1)

    with new_postgres_database(server.url, "bookdrop_new") as url:
        engine = open_engine(pooler.url_of(make_url(url).database or ""))
        with engine.begin() as other:
            other.execute(text(f"SELECT pg_advisory_xact_lock({migration.MIGRATION_LOCK_ID})"))
            with pytest.raises(MigrationBusyError, match="Another migration is running"):
                migrate(engine, pause=lambda _: None)
        migrate(engine)
        current, wanted = revisions(engine)
        engine.dispose()

    assert current == wanted


@pytest.mark.long
def test_whole_path_through_a_pooler(deployment, raw_station, library, engine, tmp_path):
    """Import, search, scans, slips, exports and the doctor: commands and workers use PgBouncer alone."""
    rows = [{"external_id": f"BR-9{number:04d}", "partner": "XX-RUL", "branch": "main", "status": "Loaned to patron",
             "title": f"Pooled volume {number}"} for number in range(10)]  # fmt: skip
    with (tmp_path / "requests.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "items.csv").write_text(
        "request,barcode\n" + "".join(f"BR-9{number:04d},39000{number:05d}\n" for number in range(10)),
        encoding="utf-8",
    )

    imported = [
        deployment.bookdrop("import", "--kind", kind, tmp_path / f"{kind}.csv")
        for kind in ("requests", "items", "items")
    ]
    found = deployment.bookdrop("requests", "find", "pooled", "volume", "--json")
    assert [done.returncode for done in imported] == [0, 0, 0], [done.stderr for done in imported]
    with deployment.worker("returns"), deployment.worker("printing"), deployment.worker("housekeeping"):
        sent = [raw_station.send(library.scan(f"39000{number:05d}")) for number in range(10)]
        replies = raw_station.replies_to(*sent)
        wait_until(lambda: _done(engine) == 10, "every slip is printed")
        diagnosis = deployment.bookdrop("doctor", "--json")
    exported = deployment.bookdrop("export", "returns", "--since", "2020-01-01", "--json")
    listed = deployment.bookdrop("prints", "list", "--json")
    metrics = deployment.bookdrop("metrics", "--once")

    assert [done.returncode for done in (found, exported, listed, metrics)] == [0, 0, 0, 0]
    assert "Pooled volume 7" in found.stdout
    assert listed.stdout.count("main-slips") >= 10
    assert {reply["message"] for reply in replies} == {f"The item's destination is {LENDER}"}
    assert any("connection pooler" in each["message"] for each in json.loads(diagnosis.stdout))
    assert {each["part"] for each in json.loads(diagnosis.stdout) if not each["ok"]} <= {"broker"}
    assert 'bookdrop_source_up{source="database"} 1.0' in metrics.stdout


def _done(engine):
    with engine.connect() as connection:
        return connection.execute(
            select(func.count()).select_from(PrintJob).where(PrintJob.state == PrintState.DONE)
        ).scalar_one()
