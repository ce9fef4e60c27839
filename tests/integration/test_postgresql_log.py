# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's own log contains no patron, with the settings of deploy/postgresql/, also of failed statements."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, insert, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import sessionmaker

from schemas.database import open_engine
from schemas.migration import migrate
from schemas.models import Item, Loan, Patron, Request
from tasks.context import Context
from tasks.events.policy import LibraryPolicy
from tasks.events.processing import process_in
from tasks.privacy.erasure import erase_patron
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tests.deploy_files import DEPLOY
from tests.library import Library, reply_to
from tests.postgresql import postgres_server
from tests.task_context import POLICY, NullPublisher
from workers.doctor.server_log import postgresql_log

NAME, NUMBER = "Zyphora Unmistakable-Canaria", "CANARY4711007"

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


@pytest.fixture
def server():
    """A server that logs every statement, as an administrator may set it."""
    with postgres_server(log_min_duration_statement="0", log_min_error_statement="error") as server:
        admin = create_engine(server.url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("CREATE ROLE bookdrop LOGIN"))
            connection.execute(text("CREATE DATABASE bookdrop OWNER bookdrop"))
        admin.dispose()
        yield server


def use_patron(url, spool):
    """Import, scan, fail and erase with the patron; return the doctor's finding about the log."""
    engine = open_engine(url)
    migrate(engine)
    library = Library(engine, spool).open()
    request, _ = library.request(on_loan=False)
    with engine.begin() as connection:
        connection.execute(update(Patron).values(name=NAME, number=NUMBER))
        patron = connection.execute(text("SELECT id FROM patrons")).scalar_one()
    for statement in (
        insert(Patron).values(number=NUMBER, name=NAME),  # the number is not unique
        insert(Patron).values(number=f"{NUMBER}X", name=None),  # no name: the error quotes the row
        insert(Patron).values(number=f"{NUMBER}X", name=NAME * 20),  # longer than the column
        insert(Patron).values(number=f"{NUMBER}\x00", name=NAME),  # NUL
        insert(Loan).values(item_id=-1, patron_id=patron, loaned_at=library.now),
    ):
        with pytest.raises((DBAPIError, ValueError)), engine.begin() as connection:
            connection.execute(statement)
    context = Context(sessionmaker(engine, expire_on_commit=False), lambda: datetime.now(UTC), NullPublisher(), "test")
    policy = LibraryPolicy(POLICY.new_id, POLICY.undo_window, None)
    with context.unit_of_work() as uow:
        for payload in (library.scan(NUMBER), library.return_requested(request, note=f"for {NAME}, {NUMBER}"),
                        library.scan(NUMBER, key="wrong")):  # fmt: skip
            process_in(uow, [Received(payload, reply_to(payload))], RETURN_HANDLER, policy)
    with engine.begin() as connection:
        connection.execute(update(Request).values(patron_id=None))
        connection.execute(text("DELETE FROM set_aside_links"))
        connection.execute(insert(Item).values(position=1))
        findings = list(postgresql_log(connection))
    assert erase_patron(NUMBER, context).rows["patrons"] == 1
    engine.dispose()
    return findings


def test_log_of_every_statement_contains_no_patron(server, tmp_path):
    """Statements and their errors are logged, but neither a parameter nor a row; the doctor is content."""
    server.run_file(DEPLOY / "postgresql/log-settings.sql")

    findings = use_patron(server.url_of("bookdrop", "bookdrop"), tmp_path)

    assert "INSERT INTO patrons" in server.log
    assert "duplicate key value violates unique constraint" in server.log
    for telltale in (NAME, NUMBER, "Zyphora", "CANARY"):
        assert telltale not in server.log, telltale
    assert findings == []


def test_log_without_the_settings_contains_the_patron(server, tmp_path):
    """The search finds what is there: without the settings the server quotes keys and parameters, and the doctor warns."""
    findings = use_patron(server.url_of("bookdrop", "bookdrop"), tmp_path)

    assert NUMBER in server.log
    assert [finding.part for finding in findings] == ["database"]
    assert "log-settings.sql" in findings[0].advice
