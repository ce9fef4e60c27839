# SPDX-License-Identifier: Apache-2.0
"""`bookdrop requests find|list|show` on both databases: search, filters, pages, and one request without its patron."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update
from sqlalchemy.orm import sessionmaker
from uuid6 import uuid7

from schemas.models import Request
from schemas.request_status import RequestStatus
from tasks.events.policy import LibraryPolicy
from tasks.events.processing import process_in
from tasks.quarantine.rejection import Received
from tasks.requests.search import Filter, identify, page
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
    overdue = {"due_at": library.now - timedelta(days=1)}
    late, _ = library.request(loan=overdue)
    in_time, _ = library.request()
    discharged, _ = library.request(
        RequestStatus.RETURNED_TO_PARTNER, on_loan=True, loan={**overdue, "discharged_at": library.now}
    )

    assert listed(run("list", "--overdue", "--json")) == [late]
    assert listed(run("list", "--partner", "XX-RUL", "--branch", "main", "--json")) == [discharged, in_time, late]
    assert listed(run("list", "--partner", "XX-OTHER", "--json")) == []
    assert listed(run("list", "--branch", "south", "--json")) == []


def test_pages_list_each_request_once(run, library):
    """A page names the start of the next one; together the pages list each request once."""
    made = [library.request()[0] for _ in range(5)]

    first = json.loads(run("list", "--limit", "3", "--json").stdout)
    second = json.loads(run("list", "--limit", "3", "--after", str(first["next_after"]), "--json").stdout)
    words = run("list", "--limit", "3").stdout

    assert [row["request"] for row in first["requests"] + second["requests"]] == made[::-1]
    assert first["total"] == second["total"] == 5
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
    """An unknown request ends with code 1 and the command that searches."""
    result = run("show", "BR-NONE")

    assert result.exit_code == 1
    assert "requests find" in result.output


def test_database_without_tables_ends_with_code_1(monkeypatch, tmp_path):
    """A database without tables ends with code 1 and the command that checks it."""
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", f"sqlite:///{tmp_path / 'empty.db'}")

    result = CliRunner().invoke(main, ["requests", "list"])

    assert result.exit_code == 1
    assert "bookdrop doctor" in result.output


def title(engine, external_id, **columns):
    """Change columns of a request, for example its title."""
    with engine.begin() as connection:
        connection.execute(update(Request).where(Request.external_id == external_id).values(**columns))


def test_words_match_from_their_beginning_without_case_and_diacritics(run, library, engine):
    """All words must match, in title and author together; the index follows a changed title."""
    garden, _ = library.request()
    other, _ = library.request()
    title(engine, garden, title="Gärten der Müllerin: node.js, 2nd ed.", author="Ó Briain, Séamus")
    title(engine, other, title="Garten und Haus", author="Müller, Eva")

    assert listed(run("find", "garten", "--json")) == [other, garden]
    assert listed(run("find", "MÜLL", "gart", "--json")) == [other, garden]
    assert listed(run("find", "briain gärt", "--json")) == [garden]
    assert listed(run("find", "node js", "--json")) == [garden]
    assert listed(run("find", "arten", "--json")) == []
    assert listed(run("list", "--words", "haus", "--json")) == [other]
    title(engine, other, title="Something else")
    assert listed(run("find", "haus", "--json")) == []


def test_cyrillic_words_match(run, library, engine):
    """A letter that decomposes, such as й, matches on both databases."""
    war, _ = library.request()
    title(engine, war, title="Война и мир")

    assert listed(run("find", "война", "--json")) == [war]


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_can_be_searched(engine, library, phrase):
    """No text is a syntax error of the search."""
    with engine.connect() as connection:
        assert page(connection, Filter(words=phrase), library.now).total == 0
        identify(connection, phrase)


def test_barcode_and_isbn_find_their_requests(run, library, engine):
    """A barcode finds all requests with it, an ISBN in either form its requests, an identifier its request."""
    request, [barcode] = library.request()
    title(engine, request, isbn="9783161484100")

    assert listed(run("find", barcode, "--json")) == [request]
    assert listed(run("find", f" {barcode}\r", "--json")) == [request]
    assert listed(run("find", "3-16-148410-X", "--json")) == [request]
    assert listed(run("find", request, "--json")) == [request]
    assert listed(run("find", "39999999", "--json")) == []


def test_reused_barcode_shows_the_open_request(run, library):
    """`show` with a barcode shows the open request and names the others; two open requests are listed instead."""
    old, [barcode] = library.request(RequestStatus.COMPLETED)
    still_open, _ = library.request(barcodes=[[barcode]])

    shown = run("show", barcode)

    assert shown.stdout.startswith(still_open)
    assert f"Other requests: {old}" in shown.stdout
    second, _ = library.request(barcodes=[[barcode]])
    ambiguous = run("show", barcode)
    assert ambiguous.exit_code == 1
    assert f"{second}, {still_open}" in ambiguous.output


def test_text_without_a_word_finds_nothing(run, library):
    """Punctuation matches no request, and does not list all of them."""
    library.request()

    assert listed(run("find", "...", "--json")) == []
    assert listed(run("list", "--words", "-", "--json")) == []


def test_pages_of_words_list_each_request_once_within_the_other_filters(run, library, engine):
    """A page of a search by words continues where the last one ended, newest first."""
    made = [library.request()[0] for _ in range(5)]
    library.request(RequestStatus.RECEIVED)

    options = ("list", "--words", "book number", "--status", "loaned", "--branch", "main", "--limit", "3", "--json")
    first = json.loads(run(*options).stdout)
    second = json.loads(run(*options, "--after", str(first["next_after"])).stdout)

    assert [row["request"] for row in first["requests"] + second["requests"]] == made[::-1]
    assert (first["total"], second["total"], second["next_after"]) == (5, 5, None)


def test_large_total_is_not_counted_to_its_end(run, library, monkeypatch):
    """Above the limit the text says so, and the JSON has no total."""
    monkeypatch.setattr("tasks.requests.search.MAX_COUNTED", 2)
    library.request()
    library.request()
    assert "2 of 2." in run("list").stdout
    library.request()

    assert "3 of more than 2." in run("list").stdout
    assert json.loads(run("find", "book", "--json").stdout)["total"] is None


@pytest.mark.parametrize("typed", ['="{}"', "{}\u200b", "\u2028{} "], ids=ascii)
def test_barcode_is_found_as_a_spreadsheet_or_a_web_page_wrote_it(run, library, typed):
    """The search ignores the same characters around a barcode as a station."""
    request, [barcode] = library.request()

    assert listed(run("find", typed.format(barcode), "--json")) == [request]


def test_list_shows_heading_barcodes_dates_and_total(run, library, engine):
    """The text has a heading, each request's barcodes and day, and the number of all."""
    request, [barcode] = library.request()
    title(engine, request, created_at=datetime(2026, 1, 31, 12, tzinfo=UTC))
    for _ in range(2):
        library.request()

    shown = run("list", "--limit", "2").stdout
    line = next(line for line in run("list").stdout.splitlines() if line.startswith(request))

    assert shown.startswith("REQUEST ")
    assert "2 of 3." in shown
    assert barcode in line
    assert "  2026-01-31  " in line


def test_dates_filter_by_creation(run, library, engine):
    """Both days are included, from midnight to midnight."""
    early, _ = library.request()
    late, _ = library.request()
    title(engine, early, created_at=datetime(2026, 1, 31).astimezone(UTC))
    title(engine, late, created_at=datetime(2026, 2, 2).astimezone(UTC))

    assert listed(run("list", "--from", "2026-01-31", "--to", "2026-02-01", "--json")) == [early]
    assert listed(run("list", "--from", "2026-02-02", "--json")) == [late]
    assert run("list", "--from", "yesterday").exit_code == 2


def test_csv_has_no_cell_that_a_spreadsheet_runs(run, library, engine):
    """A title that begins as a formula gets an apostrophe; the barcodes of an item are one cell."""
    request, _ = library.request(barcodes=[["31000001", "TMP1"]])
    title(engine, request, title='=HYPERLINK("https://example.org")')

    [row] = csv.DictReader(io.StringIO(run("list", "--csv").stdout))

    assert row["title"] == '\'=HYPERLINK("https://example.org")'
    assert row["barcodes"] == "31000001|TMP1"
