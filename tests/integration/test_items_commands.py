# SPDX-License-Identifier: Apache-2.0
"""`bookdrop items`: barcodes are added, removed and corrected, with history, and stay so after the next import."""

import json

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from schemas.models import Item, ItemBarcode, Request, RequestEvent
from schemas.request_status import RequestStatus
from tasks.returns.handler import RETURN_HANDLER
from workers.cli import main
from workers.commands.options import account_name

REASON = ("--reason", "as on the book")


@pytest.fixture
def bookdrop(library, database_url, monkeypatch, tmp_path):
    """Run a command; return its result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    monkeypatch.setenv("BOOKDROP_PATRON_CARD_PATTERN", r"P\d{6}")

    def run(*arguments):
        result = CliRunner().invoke(main, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def nightly(bookdrop, tmp_path):
    """Import rows of items; return the report."""

    def nightly(*rows):
        path = tmp_path / "items.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return json.loads(bookdrop("import", str(path), "--kind", "items", "--json").stdout)

    return nightly


def barcodes(engine):
    query = (
        select(Item.position, ItemBarcode.barcode)
        .join(Item, Item.id == ItemBarcode.item_id)
        .order_by(Item.request_id, Item.position, ItemBarcode.id)
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def history(rows):
    changes = [line for line in rows(RequestEvent) if line.kind.startswith("barcode_")]
    return [(line.kind, line.details["barcode"], line.details["item"], line.note) for line in changes]


def test_barcode_is_corrected(library, bookdrop, engine, rows, handle, nightly):
    """The right barcode takes the place of the wrong one; the next import of the wrong one changes nothing."""
    request, _ = library.request(barcodes=[["3100", "ALIAS"]])

    result = bookdrop("items", "correct-barcode", request, "3100", "31001", *REASON, "--actor", "kim", "--json")
    night = nightly({"request": request, "barcode": "3100"}, {"request": request, "barcode": "3100", "position": 1})
    [wrong, right] = [handle(RETURN_HANDLER, library.scan(code))[0] for code in ("3100", "31001")]

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "request": request, "position": 1, "barcodes": ["31001", "ALIAS"], "changed": True, "kept": True,
        "message": f"Corrected barcode 3100 to 31001 ({request}, item 1)",
    }  # fmt: skip
    assert (night["unchanged"], [(note["note"], note["rows"]) for note in night["notes"]]) == (
        2, [("barcode_removed", 2)],
    )  # fmt: skip
    assert barcodes(engine) == [(1, "31001"), (1, "ALIAS")]
    assert history(rows) == [
        ("barcode_removed", "3100", 1, "as on the book"), ("barcode_added", "31001", 1, "as on the book"),
    ]  # fmt: skip
    removed = rows(RequestEvent)[0].details
    assert (removed["actor"], removed["identified_by"], removed["account"]) == ("kim", "typed", account_name())
    assert (wrong.reason, right.outcome) == ("unknown_barcode", "returned")


def test_removed_barcode_stays_removed(library, bookdrop, engine, rows, nightly):
    """An import adds a removed barcode no more, also beside others, until an operator adds it again."""
    request, _ = library.request(barcodes=[["A", "B"]])

    removed = bookdrop("items", "remove-barcode", request, "B", *REASON)
    night = nightly({"request": request, "barcode": "A|B|C"})
    after = barcodes(engine)
    bookdrop("items", "add-barcode", request, "B", *REASON)

    assert (removed.exit_code, night["changed"], night["notes"][0]["note"]) == (0, 1, "barcode_removed")
    assert after == [(1, "A"), (1, "C")]
    assert nightly({"request": request, "barcode": "A|B|C"})["notes"] == []
    assert [kind for kind, *_ in history(rows)] == ["barcode_removed", "barcode_added"]


def test_barcode_moves_to_another_item(library, bookdrop, engine, nightly):
    """Removed from one volume and added to another, a barcode stays there after the next import."""
    request, _ = library.request(barcodes=[["A", "B"], ["C"]])

    bookdrop("items", "remove-barcode", request, "B", "--position", "1", *REASON)
    added = bookdrop("items", "add-barcode", request, "B", "--position", "2", *REASON)
    night = nightly({"request": request, "barcode": "B"})

    assert added.exit_code == 0, added.output
    assert (night["unchanged"], night["notes"]) == (1, [])
    assert barcodes(engine) == [(1, "A"), (2, "C"), (2, "B")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("remove-barcode", "BR-1", "A"), "the only one"),
        (("remove-barcode", "BR-1", "Z"), "is not on"),
        (("remove-barcode", "NO-SUCH", "A"), "no request"),
        (("add-barcode", "BR-1", "D"), "--position"),
        (("add-barcode", "BR-1", "D", "--position", "7"), "no item 7"),
        (("add-barcode", "BR-1", "B", "--position", "1"), "on item 2"),
        (("add-barcode", "BR-1", "OPEN", "--position", "1"), "BR-2"),
        (("add-barcode", "BR-1", "P000001", "--position", "1"), "patron card"),
        (("add-barcode", "BR-1", "3.00E+13", "--position", "1"), "Nothing was changed."),
        (("add-barcode", "BR-1", " ", "--position", "1"), "Nothing was scanned"),
        (("correct-barcode", "BR-1", "A", "B"), "on item 2"),
        (("correct-barcode", "BR-1", "A", "OPEN"), "BR-2"),
        (("correct-barcode", "BR-1", "Z", "D"), "is not on"),
        (("correct-barcode", "BR-1", "A", "D", "--position", "2"), "is not on"),
    ],
)
def test_change_that_loses_or_confuses_an_item_is_refused(library, bookdrop, engine, rows, arguments, words):
    """A refused change states the cause, changes nothing and has exit code 1."""
    library.request(external_id="BR-1", barcodes=[["A"], ["B", "B2"]])
    library.request(external_id="BR-2", barcodes=[["OPEN"]])
    before = barcodes(engine)

    result = bookdrop("items", *arguments, *REASON)

    assert result.exit_code == 1
    assert words in result.stderr
    assert "Nothing was changed." in result.stderr
    assert (barcodes(engine), rows(RequestEvent)) == (before, [])


def test_barcode_of_a_closed_request_may_be_reused(library, bookdrop, engine):
    """A barcode of a returned item is free, as at receipt."""
    library.request(RequestStatus.COMPLETED, barcodes=[["FREE"]])
    request, _ = library.request(barcodes=[["A"]])

    assert bookdrop("items", "add-barcode", request, "FREE", *REASON).exit_code == 0


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "arguments",
    [("add-barcode", "BR-1", "D"), ("remove-barcode", "BR-1", "B"), ("correct-barcode", "BR-1", "A", "D"),
     ("correct-barcode", "BR-1", "A", "B")],
)  # fmt: skip
def test_dry_run_changes_nothing(library, bookdrop, engine, rows, arguments):
    """A dry run shows the result and stores neither barcodes nor history."""
    library.request(external_id="BR-1", barcodes=[["A", "B"]])

    result = bookdrop("items", *arguments, *REASON, "--dry-run")

    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "Dry run. Nothing was changed.")
    assert (barcodes(engine), rows(RequestEvent)) == ([(1, "A"), (1, "B")], [])


@pytest.mark.databases("sqlite")
def test_repeated_change_is_there_already(library, bookdrop, rows):
    """Adding a barcode that the item has, and correcting to the same, change nothing and succeed."""
    library.request(external_id="BR-1", barcodes=[["A"]])

    results = [
        bookdrop("items", "add-barcode", "BR-1", "A", *REASON, "--json"),
        bookdrop("items", "correct-barcode", "BR-1", "A", "A", *REASON, "--json"),
    ]

    assert [(result.exit_code, json.loads(result.stdout)["changed"]) for result in results] == [(0, False)] * 2
    assert rows(RequestEvent) == []


@pytest.mark.databases("sqlite")
def test_change_needs_a_reason(library, bookdrop):
    """Without --reason a change is a usage error."""
    library.request(external_id="BR-1", barcodes=[["A", "B"]])

    assert bookdrop("items", "remove-barcode", "BR-1", "B").exit_code == 2


def test_show_lists_items_and_changes(library, bookdrop, engine):
    """The items with all barcodes, and each change with operator and reason; no patron."""
    request, _ = library.request(barcodes=[["A"], ["B", "B2"]])
    bookdrop("items", "remove-barcode", request, "B2", "--actor", "kim", *REASON)

    text = bookdrop("items", "show", request).stdout
    found = json.loads(bookdrop("items", "show", request, "--json").stdout)

    assert "Item 1: A" in text
    assert f"B2 removed, item 2, by kim (name typed, account {account_name()}): as on the book" in text
    assert [[code["barcode"] for code in item["barcodes"]] for item in found["items"]] == [["A"], ["B"]]
    assert found["barcode_changes"][0]["details"]["barcode"] == "B2"
    with engine.connect() as connection:
        patron = connection.execute(select(Request.patron_id)).scalar_one()
    assert patron is not None
    assert "patron" not in json.dumps(found)
    assert bookdrop("items", "show", "NO-SUCH").exit_code == 1
