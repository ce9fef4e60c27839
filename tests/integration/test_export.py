# SPDX-License-Identifier: Apache-2.0
"""`bookdrop export returns` on both databases: every event once, resumable, without a patron."""

import csv
import io
import json
from datetime import timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import insert, select, update

from schemas.circulation_events import UndoRequested
from schemas.models import Request, RequestEvent
from tasks.requests.export import COLUMNS, ExportFilter, export_events
from tasks.requests.history import HistoryKind
from tasks.returns.handler import RETURN_HANDLER
from tasks.returns.undo_handler import UNDO_HANDLER
from workers.cli import main


@pytest.fixture
def run(library, database_url, monkeypatch, tmp_path):
    """Run `bookdrop export returns ...`; the library of the tests is there already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    return lambda *arguments: CliRunner().invoke(main, ["export", "returns", *arguments])


@pytest.fixture
def settle(engine):
    """Date all history back, beyond the time limit of a task."""

    def settle():
        with engine.begin() as connection:
            rows = connection.execute(RequestEvent.__table__.select()).all()
            for row in rows:
                at = row.recorded_at - timedelta(minutes=10)
                connection.execute(update(RequestEvent).where(RequestEvent.id == row.id).values(recorded_at=at))

    return settle


def rows(result):
    """Rows of an export in JSON Lines."""
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_returns_and_undo_are_exported_in_order(run, library, handle, settle):
    """A Return and its undo, with status, station, lender and barcodes, and nothing about the patron."""
    request, [barcode] = library.request()
    scan = library.scan(barcode)
    handle(RETURN_HANDLER, scan)
    handle(UNDO_HANDLER, library.event(UndoRequested, undoes=scan["event_id"]))
    settle()

    returned, undone = rows(run("--json"))

    assert (returned["what"], undone["what"]) == ("returned", "undone")
    assert returned["event"] == str(scan["event_id"])
    assert (returned["request"], returned["status_before"], returned["status_after"]) == (
        request, "loaned", "returned_to_partner",
    )  # fmt: skip
    assert (returned["station"], returned["partner"], returned["barcodes"]) == ("main-desk-1", "XX-RUL", [barcode])
    assert list(returned) == list(COLUMNS)
    assert "patron" not in json.dumps(returned).lower().replace("returned_by_patron", "")


def test_history_that_ends_or_restores_a_loan_is_exported(run, library, engine, settle):
    """Also lines without an item. The other lines of the history stay here."""
    external_id, _ = library.request()
    with engine.begin() as connection:
        request_id = connection.execute(select(Request.id).where(Request.external_id == external_id)).scalar_one()
        for kind in HistoryKind:
            connection.execute(
                insert(RequestEvent).values(
                    request_id=request_id, kind=kind, at=library.now, recorded_at=library.now, branch="main"
                )
            )
    settle()

    found = rows(run("--json"))

    assert {row["what"] for row in found} == {
        "returned", "item_checked_in", "discharged", "discharged_late", "undone", "completed"
    }  # fmt: skip
    assert [row["barcodes"] for row in found] == [[]] * 6


def test_cursor_file_continues_where_the_last_export_ended(run, library, handle, settle, tmp_path):
    """Together the exports have each event once; an export without rows keeps the cursor."""
    cursor = tmp_path / "cursor"
    exported = []
    for _ in range(2):
        _, [barcode] = library.request()
        handle(RETURN_HANDLER, library.scan(barcode))
        settle()
        exported += [row["barcodes"] for row in rows(run("--json", "--cursor-file", str(cursor)))]
        assert rows(run("--json", "--cursor-file", str(cursor))) == []

    assert len(exported) == len({tuple(barcodes) for barcodes in exported}) == 2
    assert int(cursor.read_text()) > 0


def test_event_of_a_running_task_is_not_passed(run, library, handle, settle):
    """An event younger than the time limit waits: one with a lower number may still be uncommitted."""
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))

    assert rows(run("--json")) == []
    settle()
    assert len(rows(run("--json"))) == 1


def test_csv_has_a_header_and_since_takes_a_time_or_a_cursor(run, library, handle, settle):
    """The default form is CSV; `--since` takes a time, or the cursor that the last export printed."""
    for _ in range(2):
        _, [barcode] = library.request()
        handle(RETURN_HANDLER, library.scan(barcode))
    settle()

    first, second = csv.DictReader(io.StringIO(run().stdout))
    [last] = csv.DictReader(io.StringIO(run("--since", first["cursor"]).stdout))

    assert last == second
    assert list(csv.DictReader(io.StringIO(run("--since", "2020-01-01").stdout))) == [first, second]
    assert list(csv.DictReader(io.StringIO(run("--since", "2099-01-01").stdout))) == []
    assert f"--since {second['cursor']}" in run().stderr


@pytest.mark.parametrize("since", ["yesterday", "1" * 30, "-1", "0001-01-01T00:00:00+14:00"])
def test_wrong_since_is_a_usage_error(run, since):
    """Neither a cursor nor a time: code 2, and nothing is written."""
    result = run("--since", since)

    assert result.exit_code == 2
    assert result.stdout == ""


def test_since_beside_a_cursor_file_is_a_usage_error(run, tmp_path):
    """Two starting points contradict each other."""
    (tmp_path / "cursor").write_text("5\n")

    assert run("--since", "1", "--cursor-file", str(tmp_path / "cursor")).exit_code == 2


def test_batches_are_one_export(engine, library, handle, settle, monkeypatch):
    """More rows than a batch holds are exported once each."""
    monkeypatch.setattr("tasks.requests.export.BATCH_SIZE", 2)
    for _ in range(5):
        _, [barcode] = library.request()
        handle(RETURN_HANDLER, library.scan(barcode))

    with engine.connect() as connection:
        found = [row["cursor"] for row in export_events(connection, ExportFilter())]

    assert len(found) == len(set(found)) == 5
    assert found == sorted(found)
