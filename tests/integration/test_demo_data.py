# SPDX-License-Identifier: Apache-2.0
"""`bookdrop demo-data` on both databases: data of every kind, and invented patrons."""

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select

from schemas.database import open_engine
from schemas.models import Branch, Item, Loan, Partner, Patron, Request
from schemas.request_status import RequestStatus
from workers.cli import main


@pytest.fixture
def run(database_url, monkeypatch, tmp_path):
    """Run `bookdrop demo-data` on an empty database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    return lambda *arguments: CliRunner().invoke(main, ["demo-data", *arguments])


@pytest.fixture
def query(run, database_url):
    """Load the demo data; run a query."""
    done = run()
    assert done.exit_code == 0, done.output
    engine = open_engine(database_url)

    def ask(question):
        with engine.connect() as connection:
            return connection.execute(question).all()

    yield ask
    engine.dispose()


def test_demo_data_contains_every_status_and_several_branches(query):
    """Several hundred requests, at least one in each status, at several branches."""
    statuses = dict(query(select(Request.status, func.count()).group_by(Request.status)))

    assert set(statuses) == set(RequestStatus)
    assert sum(statuses.values()) >= 300
    assert len(query(select(Branch.id))) >= 3


def test_partners_have_isils_and_titles_several_scripts(query):
    """The lenders have ISILs; the titles are in Latin, Cyrillic and Greek letters, and in others."""
    codes = [code for (code,) in query(select(Partner.code))]
    titles = "".join(title for (title,) in query(select(Request.title)))

    assert all("-" in code for code in codes)
    assert len(set(codes)) == len(codes) >= 10
    for first, last in (("a", "z"), ("а", "я"), ("α", "ω"), ("\u4e00", "\u9fff")):
        assert any(first <= letter <= last for letter in titles), first


def test_patron_names_are_plainly_invented(query):
    """No patron could be taken for a person."""
    names = [name for (name,) in query(select(Patron.name))]

    assert names
    assert all(name.startswith("Test Patron") for name in names)


def test_loaned_requests_have_an_open_loan(query):
    """Each request "Loaned to patron" has an open loan; a returned one has none."""

    def with_open_loans(status):
        return query(
            select(Request.id)
            .where(Request.status == status)
            .where(
                select(Loan.id).join(Item).where(Item.request_id == Request.id, Loan.discharged_at.is_(None)).exists()
            )
        )

    loaned = query(select(Request.id).where(Request.status == RequestStatus.LOANED))

    assert len(with_open_loans(RequestStatus.LOANED)) == len(loaned)
    assert with_open_loans(RequestStatus.RETURNED_TO_PARTNER) == []


def test_database_with_data_is_not_changed(run, library):
    """Into a database with data nothing is loaded, and the command ends with code 1."""
    result = run()

    assert result.exit_code == 1
    assert "not empty" in result.output
