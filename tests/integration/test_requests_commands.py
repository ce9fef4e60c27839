# SPDX-License-Identifier: Apache-2.0
"""`bookdrop requests list|show` on both databases: filters, pages, and one request without its patron."""

import json
from datetime import timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy.orm import sessionmaker
from uuid6 import uuid7

from schemas.request_status import RequestStatus
from tasks.events.policy import LibraryPolicy
from tasks.events.processing import process_in
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tasks.unit_of_work import UnitOfWork
from tests.library import LENDER
from workers.cli import main


@pytest.fixture
def run(library, database_url, monkeypatch, tmp_path):
    """Run `bookdrop requests ...`; the library of the tests is there already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    return lambda *arguments: CliRunner().invoke(main, ["requests", *arguments])


def listed(result):
    """External identifiers of a list in JSON, in order."""
    assert result.exit_code == 0, result.output
    return [row["request"] for row in json.loads(result.stdout)["requests"]]


@pytest.mark.parametrize("words", ["Loaned to patron", "loaned"])
def test_status_filter_accepts_label_and_name(run, library, words):
    """`--status` accepts the label on the screen or the short name, and lists that status only."""
    loaned, _ = library.request(RequestStatus.LOANED)
    library.request(RequestStatus.RECEIVED)

    assert listed(run("list", "--status", words, "--json")) == [loaned]


def test_unknown_status_lists_the_known_ones(run):
    """An unknown status ends with code 2 and the list of statuses."""
    result = run("list", "--status", "somewhere")

    assert result.exit_code == 2
    assert "Returned item to partner" in result.output


def test_filters_by_due_date_partner_and_branch(run, library):
    """Each filter lists the requests that match it, and no other."""
    late, _ = library.request(loan={"due_at": library.now - timedelta(days=1)})
    in_time, _ = library.request()

    assert listed(run("list", "--overdue", "--json")) == [late]
    assert listed(run("list", "--partner", "XX-RUL", "--branch", "main", "--json")) == [late, in_time]
    assert listed(run("list", "--partner", "XX-OTHER", "--json")) == []
    assert listed(run("list", "--branch", "south", "--json")) == []


def test_pages_list_each_request_once(run, library):
    """A page names the start of the next one; together the pages list each request once."""
    made = [library.request()[0] for _ in range(5)]

    first = json.loads(run("list", "--limit", "3", "--json").stdout)
    second = json.loads(run("list", "--limit", "3", "--after", str(first["next_after"]), "--json").stdout)
    words = run("list", "--limit", "3").stdout

    assert [row["request"] for row in first["requests"] + second["requests"]] == made
    assert second["next_after"] is None
    assert f"More: --after {first['next_after']}" in words


def test_show_lists_the_effects_of_a_return(run, library, engine):
    """`show` prints status, item, discharged loan, slip and history with the station, and names no patron."""
    external_id, [barcode] = library.request()
    house = LibraryPolicy(new_id=uuid7, undo_window=timedelta(minutes=10))
    with UnitOfWork(sessionmaker(engine), library.now) as uow:
        process_in(uow, [Received(library.scan(barcode, station="main-desk-2"), None)], RETURN_HANDLER, house)

    shown = run("show", external_id)
    story = json.loads(run("show", external_id, "--json").stdout)

    assert shown.exit_code == 0
    for words in ("Returned item to partner", LENDER, barcode, "discharged", "main-desk-2", "requested"):
        assert words in shown.stdout
    assert story["status"] == "returned_to_partner"
    assert story["items"][0]["loans"][0]["discharged_at"] is not None
    assert [event["what"] for event in story["history"]][-1] == "returned"
    assert story["slips"][0]["copy"] == 1
    assert "Test Patron" not in shown.stdout + json.dumps(story)


def test_unknown_request_ends_with_code_1(run):
    """An unknown request ends with code 1 and the command that lists requests."""
    result = run("show", "BR-NONE")

    assert result.exit_code == 1
    assert "requests list" in result.output


def test_database_without_tables_ends_with_code_1(monkeypatch, tmp_path):
    """A database without tables ends with code 1 and the command that checks it."""
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", f"sqlite:///{tmp_path / 'empty.db'}")

    result = CliRunner().invoke(main, ["requests", "list"])

    assert result.exit_code == 1
    assert "bookdrop doctor" in result.output
