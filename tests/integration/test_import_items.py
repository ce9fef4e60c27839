# SPDX-License-Identifier: Apache-2.0
"""Items of an import: two volumes never become one item, and a further barcode comes by `|` alone."""

import json
from itertools import permutations

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from schemas.circulation_events import ItemsReceived, ReceivedItem
from schemas.models import Item, ItemBarcode, Request
from tasks.circulation.handler import CIRCULATION_HANDLER
from tasks.data_import import importer
from tasks.data_import.upsert import RowRefusedError
from tasks.returns.handler import RETURN_HANDLER
from tests.import_files import as_csv, as_json
from workers.cli import main


@pytest.fixture
def load(library, database_url, monkeypatch, tmp_path):
    """Import rows of a kind with the command; return the report. A request X-1 is stored already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)

    def load(kind, *rows, form=as_json, options=()):
        path = tmp_path / "rows"
        path.write_text(form(rows), encoding="utf-8")
        result = CliRunner().invoke(main, ["import", str(path), "--kind", kind, "--json", *options])
        assert result.exit_code in {0, 1}, result.output
        found = json.loads(result.stdout)
        assert found["read"] == found["added"] + found["changed"] + found["unchanged"] + len(found["refused"])
        return found

    load(
        "requests",
        {"external_id": "X-1", "partner": "XX-RUL", "branch": "main", "status": "Loaned to patron", "title": "T"},
    )
    return load


def row(barcode, **more):
    return {"request": "X-1", "barcode": barcode, **more}


def items(engine):
    """The barcodes of each item of X-1, by position."""
    query = (
        select(Item.position, ItemBarcode.barcode)
        .join(ItemBarcode, ItemBarcode.item_id == Item.id)
        .join(Request, Request.id == Item.request_id)
        .where(Request.external_id == "X-1")
    )
    found: dict[int, set[str]] = {}
    with engine.connect() as connection:
        for position, barcode in connection.execute(query):
            found.setdefault(position, set()).add(barcode)
    return found


@pytest.mark.parametrize("form", [as_csv, as_json], ids=["csv", "json"])
@pytest.mark.parametrize("more", [{}, {"position": ""}], ids=["no column", "empty cell"])
def test_two_rows_without_position_are_two_items(load, engine, handle, library, form, more):
    """Each volume has an item, so a scan of one does not return both; the same file again changes nothing."""
    rows = [row("A", **more), row("B", **more)]

    first = load("items", *rows, form=form)
    second = load("items", *reversed(rows), form=form)
    [reply] = handle(RETURN_HANDLER, library.scan("B"))

    assert (first["added"], second["unchanged"]) == (2, 2)
    assert items(engine) == {1: {"A"}, 2: {"B"}}
    assert (reply.items.here, reply.items.of) == (1, 2)


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("rows", list(permutations([row("A|A2"), row("B"), row("C")])))
def test_order_of_rows_does_not_matter(load, engine, rows):
    """Three volumes are three items in any order of the rows; the alias stays with its volume."""
    load("items", *rows)

    assert sorted(sorted(codes) for codes in items(engine).values()) == [["A", "A2"], ["B"], ["C"]]


def test_volumes_in_two_batches_are_two_items(load, engine, monkeypatch):
    """A request whose rows are in different batches of one import is treated as in one batch."""
    monkeypatch.setattr(importer, "BATCH_SIZE", 1)

    load("items", row("A"), row("B"), row("C"))

    assert items(engine) == {1: {"A"}, 2: {"B"}, 3: {"C"}}


@pytest.mark.parametrize("options", [(), ("--strict",), ("--dry-run",)])
def test_failed_batch_is_stored_row_by_row(load, engine, options, monkeypatch):
    """When a batch fails and its rows are stored one by one, items of the failed try count as not added."""
    store, tries = importer.STORE_FUNCTIONS["items"], []

    def fail_first(rows, session, context):
        results = store(rows, session, context)
        tries.append(len(rows))
        if len(tries) == 1:
            raise RowRefusedError("once")
        return results

    monkeypatch.setattr(importer, "STORE_FUNCTIONS", {**importer.STORE_FUNCTIONS, "items": fail_first})

    found = load("items", row("A"), row("B"), options=options)

    assert (tries, found["added"]) == ([2, 1, 1], 2)
    assert items(engine) == ({} if "--dry-run" in options else {1: {"A"}, 2: {"B"}})


def test_unknown_barcode_of_an_earlier_import_is_refused(load, engine):
    """In a later import a new barcode without a position may be a further item or a correction: refused with the ways out."""
    load("items", row("A"))

    found = load("items", row("B"), row("A"))

    assert (found["unchanged"], items(engine)) == (1, {1: {"A"}})
    [reason] = [bad["reason"] for bad in found["refused"]]
    assert all(words in reason for words in ("position", "|", "bookdrop items add-barcode"))


def test_position_adds_a_further_item(load, engine):
    """A row that names a new position adds an item at any time."""
    load("items", row("A"))

    assert load("items", row("B", position=2))["added"] == 1
    assert items(engine) == {1: {"A"}, 2: {"B"}}


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (row("A", position=2), "is on item 1"),
        (row("C", position=1), "has other barcodes (A)"),
        (row("A|B"), "items 1 and 2"),
        (row("A|B", position=1), "B is on item 2"),
        ({"request": "X-1", "description": "vol."}, "2 items"),
    ],
)
def test_contradicting_row_is_refused(load, engine, later, words):
    """A row whose barcodes and position are of different items, or of none for certain, is refused with words."""
    load("items", row("A", position=1), row("B", position=2))

    found = load("items", later)

    assert words in found["refused"][0]["reason"]
    assert items(engine) == {1: {"A"}, 2: {"B"}}


def test_one_position_for_two_volumes_is_refused(load, engine):
    """A mapping with a constant position does not merge two volumes."""
    found = load("items", row("A", position=1), row("B", position=1))

    assert (found["added"], len(found["refused"])) == (1, 1)
    assert items(engine) == {1: {"A"}}


def test_alias_comes_by_the_pipe(load, engine):
    """A row with a known and a new barcode adds the new one to the item of the known one."""
    load("items", row("A"), row("B"))

    assert load("items", row("B|B2"))["changed"] == 1
    assert items(engine) == {1: {"A"}, 2: {"B", "B2"}}


@pytest.mark.parametrize("more", [{}, {"position": 1}])
def test_strap_and_barcode_of_the_lender_are_one_item(load, engine, handle, library, more):
    """An item that was received with a strap alone gets the lender's barcode from the file."""
    load("requests", {"external_id": "X-1", "status": "Shipped physically"})
    strap = (ReceivedItem(barcode="ILL-1", temporary=True),)
    handle(CIRCULATION_HANDLER, library.event(ItemsReceived, request="X-1", items=strap))

    assert load("items", row("A", **more))["changed"] == 1
    assert items(engine) == {1: {"ILL-1", "A"}}
    assert load("items", row("B"))["refused"]


def test_own_item_is_found_by_a_barcode_of_its_row(load, engine):
    """Rows of an item that the library owns are one item when they share the first barcode."""
    found = load("items", {"barcode": "OURS-1|OURS-2"}, {"barcode": "OURS-2"}, {"barcode": "OURS-3"})

    assert (found["added"], found["unchanged"]) == (2, 1)


def test_row_with_many_barcodes_is_stored(load, engine):
    """A batch may have more barcodes than a database accepts as values of one query."""
    rows = [
        {"barcode": "|".join(f"{number}-{n}" for n in range(20)), "temporary_barcode": "|".join(f"T{number}-{n}" for n in range(20))}
        for number in range(1000)
    ]  # fmt: skip

    assert load("items", *rows)["added"] == 1000
    assert load("items", *rows)["unchanged"] == 1000
