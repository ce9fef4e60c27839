# SPDX-License-Identifier: Apache-2.0
"""`bookdrop import` and `bookdrop add`, on both databases: valid rows stored, invalid ones reported, none twice."""

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import sessionmaker

from schemas.models import Item, ItemBarcode, Loan, Partner, Patron, Printer, Request, Station
from schemas.request_status import RequestStatus
from tasks.data_import.import_errors import ImportFileError
from tasks.data_import.importer import import_rows
from tasks.data_import.mapping import ColumnMapping
from tasks.data_import.readers import read
from workers.cli import main


@pytest.fixture
def run(library, database_url, monkeypatch, tmp_path):
    """Run `bookdrop import` on a text; the library of the tests is there already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)

    def run(text, *options, name="rows.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return CliRunner().invoke(main, ["import", str(path), *options])

    return run


def report(result):
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


def count(engine, model):
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(model)).scalar_one()


PARTNERS = "code,name,address,delivery_code\nDE-1,Staatsbibliothek zu Berlin,Unter den Linden 8|10117 Berlin,SBB\nDE-12,BSB,,\n"


def test_same_file_twice_changes_nothing(run, engine):
    """The second import of a file finds everything as it is."""
    first = report(run(PARTNERS, "--json"))
    second = report(run(PARTNERS, "--json"))

    assert (first["added"], second["added"], second["unchanged"]) == (2, 0, 2)
    assert count(engine, Partner) == 3


def test_changed_row_is_changed(run, engine):
    """A row whose natural key is here is changed where it differs."""
    run(PARTNERS)

    changed = report(run(PARTNERS.replace("SBB", "BLN"), "--json"))

    assert (changed["changed"], changed["unchanged"]) == (1, 1)
    with engine.connect() as connection:
        found = connection.execute(select(Partner.delivery_code).where(Partner.code == "DE-1")).scalar_one()
    assert found == "BLN"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_spreadsheets_of_all_kinds_are_read(run, delimiter):
    """Comma, semicolon or tab, a byte order mark, CR LF: what spreadsheets write."""
    text = "\ufeff" + PARTNERS.replace(",", delimiter).replace("\n", "\r\n")

    assert report(run(text, "--json"))["added"] == 2


def test_bad_rows_are_told_and_good_ones_kept(run, engine):
    """Each bad row is told with its line and its reason; exit code 1."""
    text = "code,name,delivery_code\nDE-1,Berlin,SBB\nDE-2,,X\nDE-3,Too,many,values\nDE-4,Good,\n"

    result = run(text, "--json")

    assert result.exit_code == 1
    assert report(result)["added"] == 2
    assert [bad["line"] for bad in report(result)["refused"]] == [3, 4]
    assert "name" in report(result)["refused"][0]["reason"]
    assert count(engine, Partner) == 3


@pytest.mark.parametrize("option", ["--strict", "--dry-run"])
def test_nothing_is_kept_when_so_asked(run, engine, option):
    """With --strict one bad row keeps all out; a dry run keeps nothing."""
    result = run("code,name\nDE-1,Berlin\nDE-2,\n", option, "--json")

    assert not report(result)["kept"]
    assert count(engine, Partner) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"%PDF-1.7\n\xe2\xe3\xcf\xd3", "is not a text"),
        ("Käse;Brot\n1;2\n".encode("latin-1"), "UTF-8"),
        (b"cod,name,delivery_code\nDE-1,x,y\n", "--kind"),
        (b"colour,shape\nred,round\n", "--kind"),
    ],
)
def test_wrong_file_is_told(run, engine, content, words):
    """A file that is none of ours gets a clear error, exit code 2, and stores nothing."""
    result = run(content)

    assert result.exit_code == 2
    assert words in result.stderr
    assert "Nothing was imported." in result.stderr
    assert count(engine, Partner) == 1


def test_unknown_column_is_told_with_the_right_one(run):
    """A column that the kind does not have is named, with the nearest."""
    result = run("cod,name\nDE-1,x\n", "--kind", "partners")

    assert result.exit_code == 2
    assert "Did you mean code?" in result.stderr


def test_missing_file_is_told(run):
    """No such file: words, exit code 2."""
    result = CliRunner().invoke(main, ["import", "no-such-file.csv"])

    assert result.exit_code == 2
    assert "cannot be read" in result.stderr


EVERYTHING = """\
{"kind": "patrons", "number": "P1", "name": "Test Patron 1"}
{"kind": "requests", "external_id": "X-1", "partner": "XX-RUL", "branch": "main", "status": "Loaned to patron", "title": "T", "patron": "P1"}
{"kind": "items", "request": "X-1", "barcode": "0001|A/1", "temporary_barcode": "TMP-1"}
{"kind": "items", "barcode": "OURS-1"}
{"kind": "loans", "barcode": "TMP-1", "patron": "P1", "loaned_at": "2026-11-01T10:00:00Z", "due_at": "2026-12-01"}
"""


def test_one_file_of_every_kind(run, engine):
    """JSON Lines may hold all kinds; a second time nothing changes."""
    first = report(run(EVERYTHING, "--json"))
    second = report(run(EVERYTHING, "--json"))

    assert (first["added"], first["refused"]) == (5, [])
    assert (second["unchanged"], second["refused"]) == (5, [])
    with engine.connect() as connection:
        assert connection.execute(select(Request.status)).scalar_one() is RequestStatus.LOANED
        assert set(connection.execute(select(ItemBarcode.barcode)).scalars()) == {"0001", "A/1", "TMP-1", "OURS-1"}
        assert connection.execute(select(Loan.patron_id)).scalar_one() is not None
    assert count(engine, Item) == 2
    assert count(engine, Patron) == 1


def test_an_import_reopens_nothing(run, engine):
    """A file does not reopen a returned request or a discharged loan; its rows are unchanged, with notes."""
    run(EVERYTHING)
    run(EVERYTHING.replace("Loaned to patron", "Returned item to partner").replace('"due_at"', '"discharged_at"'))

    result = report(run(EVERYTHING.replace('"due_at": "2026-12-01"', '"discharged_at": null'), "--json"))

    assert (result["unchanged"], result["refused"]) == (5, [])
    assert [(note["kind"], note["note"], note["rows"]) for note in result["notes"]] == [
        ("loans", "discharged", 1),
        ("requests", "already_returned", 1),
    ]
    with engine.connect() as connection:
        assert connection.execute(select(Request.status)).scalar_one() is RequestStatus.RETURNED_TO_PARTNER
        assert connection.execute(select(Request.patron_id)).scalar_one() is None
        assert connection.execute(select(Loan.patron_id)).scalar_one() is None


def test_another_systems_export_loads_through_a_mapping(run, tmp_path, engine):
    """Headers and words of another system become ours; columns nobody mapped are left out."""
    (tmp_path / "map.toml").write_text(
        '[columns]\n"Request ID" = "external_id"\nLender = "partner"\n"Titel" = "title"\nState = "status"\n'
        '[values.status]\n"ON LOAN" = "Loaned to patron"\n[constants]\nbranch = "main"\n'
    )

    result = run(
        "Request ID;Lender;Titel;State;Colour\nE-9;XX-RUL;Ein Buch;ON LOAN;blue\n",
        "--kind", "requests", "--mapping", str(tmp_path / "map.toml"), "--json",
    )  # fmt: skip

    assert report(result)["added"] == 1, result.output
    with engine.connect() as connection:
        assert connection.execute(select(Request.title)).scalar_one() == "Ein Buch"


def test_a_row_that_points_nowhere_is_told(run):
    """A request of a partner that is not here is refused by name; its neighbours are kept."""
    text = (
        "external_id,partner,branch,status,title\nX-1,NO-SUCH,main,Loaned to patron,T\n"
        "X-2,XX-RUL,main,Loaned to patron,T\nX-3,XX-RUL,main,No such status,T\n"
    )

    result = report(run(text, "--json"))

    assert result["added"] == 1
    assert [bad["line"] for bad in result["refused"]] == [2, 4]
    assert "NO-SUCH" in result["refused"][0]["reason"]


def test_many_batches_are_one_import(run, engine):
    """Rows beyond one batch are all stored, and all found again."""
    text = "code,name,delivery_code\n" + "".join(f"DE-{n},Library {n},\n" for n in range(2500))

    assert report(run(text, "--json"))["added"] == 2500
    assert report(run(text, "--json"))["unchanged"] == 2500


@pytest.fixture
def add(run):
    """Run `bookdrop add`; return its JSON."""

    def add(*arguments):
        result = CliRunner().invoke(main, ["add", *arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return add


def row_of(engine, model, **where):
    with engine.connect() as connection:
        [found] = connection.execute(select(model.__table__).filter_by(**where)).mappings()
        return dict(found)


ANOTHER_KEY = "another key of the station"
HOSTILE = "\n".join(
    json.dumps(row)
    for row in (
        {"kind": "requests", "external_id": "X-1", "partner": "XX-RUL", "branch": "main", "status": "Loaned to patron",
         "title": "T"},
        {"kind": "stations", "code": "main-desk-1", "branch": "main", "key": ANOTHER_KEY},
        {"kind": "printers", "code": "main-slips", "branch": "main", "uri": "ipp://elsewhere/ipp/print"},
    )
)  # fmt: skip
HOSTILE_CSV = (
    "kind,external_id,title,code,branch,key,uri\n"
    f"stations,,,main-desk-1,main,{ANOTHER_KEY},\nprinters,,,main-slips,main,,ipp://elsewhere/ipp/print\n"
)


def stations_and_printers(engine):
    with engine.connect() as connection:
        return [connection.execute(select(model.__table__).order_by("id")).all() for model in (Station, Printer)]


def test_kind_refuses_rows_of_other_kinds(run, engine):
    """With --kind a row that names another kind is refused with its line, and the report counts it there."""
    before = stations_and_printers(engine)

    result = run(HOSTILE, "--kind", "requests", "--rotate-keys", "--json")

    assert result.exit_code == 1
    found = report(result)
    assert found["added"] == 1
    assert [(bad["line"], bad["kind"]) for bad in found["refused"]] == [(2, "stations"), (3, "printers")]
    assert {kind: counts["refused"] for kind, counts in found["by_kind"].items()} == {
        "requests": 0, "stations": 1, "printers": 1,
    }  # fmt: skip
    assert stations_and_printers(engine) == before


def test_kind_refuses_a_first_row_of_another_kind(run, engine):
    """The first line is a row as any other: its columns do not have to be those of --kind."""
    lines = "\n".join(reversed(HOSTILE.splitlines()))

    found = report(run(lines, "--kind", "requests", "--json"))

    assert (found["added"], [bad["line"] for bad in found["refused"]]) == (1, [1, 2])


def test_kind_refuses_csv_rows_of_other_kinds(run, engine):
    """A column `kind` of a CSV file does not override --kind."""
    before = stations_and_printers(engine)

    found = report(
        run("kind,code,name\nstations,main-desk-1,N\nbranches,main,N\n,DE-1,N\n", "--kind", "partners", "--json")
    )

    assert (found["added"], [bad["line"] for bad in found["refused"]]) == (1, [2, 3])
    assert stations_and_printers(engine) == before


@pytest.mark.parametrize("text", [HOSTILE, HOSTILE_CSV], ids=["json", "csv"])
def test_mixed_file_brings_no_station_and_no_printer(run, engine, text):
    """Without --kind, rows of stations and printers are refused."""
    before = stations_and_printers(engine)

    found = report(run(text, "--rotate-keys", "--json"))

    assert {bad["kind"] for bad in found["refused"]} == {"stations", "printers"}
    assert all("--allow" in bad["reason"] for bad in found["refused"])
    assert stations_and_printers(engine) == before


def test_columns_alone_bring_no_station(run, engine):
    """A file whose columns identify stations needs --kind or --allow too."""
    before = stations_and_printers(engine)

    found = report(run(f"code,branch,key\nnew-desk,main,{ANOTHER_KEY}\n", "--json"))

    assert [bad["kind"] for bad in found["refused"]] == ["stations"]
    assert stations_and_printers(engine) == before


def test_allow_names_each_kind(run, engine):
    """--allow printers imports printers and no stations."""
    found = report(run(HOSTILE, "--allow", "printers", "--json"))

    assert [bad["kind"] for bad in found["refused"]] == ["stations"]
    assert row_of(engine, Printer, code="main-slips")["uri"] == "ipp://elsewhere/ipp/print"


def test_key_changes_only_with_rotate_keys(run, engine):
    """Another key for a stored station is refused; --rotate-keys stores it."""
    text = f"code,key\nmain-desk-1,{ANOTHER_KEY}\n"
    key = row_of(engine, Station, code="main-desk-1")["key"]

    refused = report(run(text, "--kind", "stations", "--json"))
    kept = row_of(engine, Station, code="main-desk-1")["key"]
    changed = report(run(text, "--kind", "stations", "--rotate-keys", "--json"))

    assert "--rotate-keys" in refused["refused"][0]["reason"]
    assert kept == key
    assert changed["changed"] == 1
    assert row_of(engine, Station, code="main-desk-1")["key"] == ANOTHER_KEY


def test_two_keys_for_a_new_station_are_refused(run, engine):
    """The second row of a new station may not replace the key of the first."""
    text = f"code,branch,key\nnew-desk,main,{ANOTHER_KEY}\nnew-desk,main,{ANOTHER_KEY} 2\n"

    found = report(run(text, "--kind", "stations", "--json"))

    assert (found["added"], [bad["line"] for bad in found["refused"]]) == (1, [3])


def test_unnamed_columns_of_a_partner_stay(run, engine):
    """A file of code and name changes the name alone; an empty cell of a named column sets the default."""
    run(PARTNERS)

    run("code,name\nDE-1,Berlin\n")
    named = row_of(engine, Partner, code="DE-1")
    run("code,name,delivery_code\nDE-1,Berlin,\n")
    emptied = row_of(engine, Partner, code="DE-1")

    assert (named["name"], named["delivery_code"]) == ("Berlin", "SBB")
    assert named["address"] == ["Unter den Linden 8", "10117 Berlin"]
    assert (emptied["delivery_code"], emptied["address"]) == (None, named["address"])


def test_json_rows_of_one_file_name_different_columns(run, engine):
    """Each row changes the columns that it names, in one batch; a null is an empty value."""
    run(PARTNERS)

    found = report(run(
        '{"code": "DE-1", "name": "Berlin"}\n{"code": "DE-12", "delivery_code": "MUC"}\n'
        '{"code": "DE-1", "delivery_code": null}\n{"code": "XX-RUL"}\n',
        "--kind", "partners", "--json",
    ))  # fmt: skip

    assert (found["changed"], found["unchanged"]) == (3, 1)
    first, second = row_of(engine, Partner, code="DE-1"), row_of(engine, Partner, code="DE-12")
    assert (first["name"], first["delivery_code"]) == ("Berlin", None)
    assert first["address"] == ["Unter den Linden 8", "10117 Berlin"]
    assert (second["name"], second["delivery_code"]) == ("BSB", "MUC")


def test_nightly_requests_keep_the_return_address(run, engine):
    """Columns that the nightly export lacks stay: return address, damage note, author, patron, time of creation."""
    run(
        '{"kind": "patrons", "number": "P1", "name": "N"}\n'
        '{"kind": "requests", "external_id": "X-1", "partner": "XX-RUL", "branch": "main", "status": "Loaned to patron",'
        ' "title": "T", "author": "A", "patron": "P1", "return_address": "Depot|1 Road", "damage_note": "wet",'
        ' "created_at": "2026-01-01T00:00:00Z"}\n'
    )
    before = row_of(engine, Request, external_id="X-1")

    night = "external_id,partner,branch,status,title\nX-1,XX-RUL,main,Overdue,T\n"
    found = report(run(night, "--kind", "requests", "--json"))

    assert found["changed"] == 1, found
    after = row_of(engine, Request, external_id="X-1")
    assert {name for name in before if before[name] != after[name]} == {"status", "updated_at"}
    assert before["return_address"] == ["Depot", "1 Road"]


def test_closing_a_request_removes_its_patron(run, engine):
    """A row that closes a request without naming the patron removes the link."""
    run(EVERYTHING)

    run("external_id,status\nX-1,Returned item to partner\n", "--kind", "requests")

    assert row_of(engine, Request, external_id="X-1")["patron_id"] is None


def test_discharging_a_loan_removes_its_patron(run, engine):
    """A row that discharges a loan without naming the patron removes the link and keeps the due date."""
    run(EVERYTHING)
    due_at = row_of(engine, Loan)["due_at"]

    rows = "barcode,loaned_at,discharged_at\nTMP-1,2026-11-01T10:00:00Z,2026-11-20T10:00:00Z\n"
    run(rows, "--kind", "loans")
    run("barcode,loaned_at\nTMP-1,2026-11-01T10:00:00Z\n", "--kind", "loans")

    loan = row_of(engine, Loan)
    assert (loan["patron_id"], loan["due_at"]) == (None, due_at)
    assert loan["discharged_at"] is not None


def test_unnamed_columns_of_an_item_stay(run, engine):
    """An item keeps its description and barcodes when a row does not name them."""
    run(EVERYTHING)
    run("request,description\nX-1,vol. 1\n", "--kind", "items")

    found = report(run("request,barcode\nX-1,0001\n", "--kind", "items", "--json"))

    assert found["unchanged"] == 1
    assert row_of(engine, Item, position=1, description="vol. 1")
    assert count(engine, ItemBarcode) == 4


@pytest.mark.parametrize(
    ("kind", "text", "missing"),
    [
        ("branches", "code,name\nnew,N\n", "library"),
        ("printers", "code,branch\nnew,main\n", "uri"),
        ("stations", "code,branch\nnew,main\n", "key"),
        ("partners", "code\nDE-1\n", "name"),
        ("patrons", "number\nP1\n", "name"),
        ("requests", "external_id,partner,branch\nX-1,XX-RUL,main\n", "status, title"),
    ],
)
def test_new_row_needs_its_columns(run, kind, text, missing):
    """A row that is not stored yet is refused without the columns that a new row needs; they are named."""
    found = report(run(text, "--kind", kind, "--json"))

    assert [bad["line"] for bad in found["refused"]] == [2]
    assert found["refused"][0]["reason"].endswith(f"needs {missing}")


def test_add_keeps_unnamed_columns(add, engine):
    """`bookdrop add` of a stored printer keeps its medium and that it is the default."""
    before = row_of(engine, Printer, code="main-slips")

    added = add("printers", "code=main-slips", "uri=ipp://printer/ipp/print")

    assert added["outcome"] == "changed"
    assert row_of(engine, Printer, code="main-slips") == before | {"uri": "ipp://printer/ipp/print"}


def test_add_keeps_the_key_of_a_stored_station(add, engine):
    """`bookdrop add stations` generates a key for a new station, and with --rotate-keys for a stored one."""
    key = row_of(engine, Station, code="main-desk-1")["key"]

    changed = add("stations", "code=main-desk-1", "printer=main-slips")
    kept = row_of(engine, Station, code="main-desk-1")
    rotated = add("stations", "code=main-desk-1", "--rotate-keys")
    new = add("stations", "code=new-desk", "branch=main")

    assert "key" not in changed
    assert (kept["key"], kept["printer_id"]) == (key, row_of(engine, Printer, code="main-slips")["id"])
    assert row_of(engine, Station, code="main-desk-1")["key"] == rotated["key"] != key
    assert row_of(engine, Station, code="new-desk")["key"] == new["key"]


def test_add_refuses_another_key(run, engine):
    """A key given for a stored station needs --rotate-keys."""
    before = stations_and_printers(engine)

    result = CliRunner().invoke(main, ["add", "stations", "code=main-desk-1", f"key={ANOTHER_KEY}"])

    assert result.exit_code == 1
    assert "--rotate-keys" in result.stderr
    assert stations_and_printers(engine) == before


def test_text_report_counts_by_kind(run):
    """Each kind has a line; the last line has the sum."""
    lines = run(HOSTILE, "--kind", "requests").stdout.splitlines()

    assert lines == [
        "printers: 0 added, 0 changed, 0 unchanged, 1 refused",
        "stations: 0 added, 0 changed, 0 unchanged, 1 refused",
        "requests: 1 added, 0 changed, 0 unchanged, 0 refused",
        "3 rows: 1 added, 0 changed, 0 unchanged, 2 refused.",
    ]


LONG = "x" * 200_000
DEEP = "[" * 1000 + "]" * 1000


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"code,name\nDE-1,{LONG}\nDE-2,N\n", [2]),
        (f'code,name\nDE-1,"{LONG}\nDE-9,N\n"\nDE-2,N\n', [2]),
        (f'{{"code": "DE-1", "name": {DEEP}}}\n{{"code": "DE-2", "name": "N"}}\n', [1]),
        (f'{{"code": "DE-2", "name": "N"}}\n{DEEP}\n{"[" * 200_000}\n', [2, 3]),
        ('{"code": "DE-2", "name": "N"}\n{"code": "DE-1", "name": ' + "9" * 5000 + "}\n", [2]),
        ('{"code": "DE-2", "name": "N"}\n{"code": "DE-1", "\\ud800": "N"}\n"\\ud800"\n', [2, 3]),
    ],
    ids=["long field", "long quoted field", "deep value", "deep line", "long number", "surrogates"],
)  # fmt: skip
def test_damaged_rows_are_refused_and_others_kept(run, engine, text, lines):
    """Damage of one row is reported with its line; the rows around it are stored."""
    result = run(text, "--kind", "partners", "--json")

    found = report(result)
    assert ([bad["line"] for bad in found["refused"]], found["added"]) == (lines, 1)
    assert all(bad["reason"] and len(bad["reason"]) <= 500 for bad in found["refused"])
    assert found["read"] == len(lines) + 1


def test_line_separators_inside_a_value_are_read(run, engine):
    """U+2028 and U+0085 do not end a line, neither of JSON nor of CSV."""
    first = report(run('{"code": "DE-1", "name": "A\u2028B"}\n', "--kind", "partners", "--json"))
    second = report(run("code,name\nDE-2,A\u0085B\n", "--kind", "partners", "--json"))

    assert (first["added"], second["added"]) == (1, 1)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(
    ["main", "XX-RUL", "main-desk-1", "Loaned to patron", "2026-11-01T10:00:00Z", "0001-01-01T00:00:00+14:00", "\ud800"]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2)
)
KINDS = st.sampled_from(["branches", "printers", "stations", "partners", "patrons", "requests", "items", "loans", "no"])
COLUMNS = st.sampled_from(
    ["code", "name", "branch", "key", "uri", "external_id", "partner", "status", "title", "barcode", "request",
     "loaned_at", "number", "address", "is_default", "created_at", "position", "colour"]
)  # fmt: skip
OBJECTS = st.builds(
    lambda kind, rest: json.dumps({"kind": kind} | rest), KINDS | VALUES, st.dictionaries(COLUMNS, VALUES, max_size=8)
)
DAMAGE = st.sampled_from([DEEP, "9" * 5000, "{", '"text"', "null", "\u2028", "[]"])


@pytest.fixture
def dry_run(engine, library, tmp_path):
    """Import a text without storing it; return the report."""
    path = tmp_path / "rows"

    def dry_run(text, kind=None):
        path.write_text(text, encoding="utf-8", newline="")
        rows = read(path, kind, ColumnMapping(), ("stations", "printers"))
        return import_rows(rows, sessionmaker(engine), datetime.now(UTC), dry_run=True)

    return dry_run


def reads(found):
    assert found.total.refused == len(found.refused)
    for row in found.refused:
        assert row.line
        assert row.reason.encode()
    return found.total.read


FILES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FILES
@given(st.lists(OBJECTS | DAMAGE, max_size=6), st.none() | st.just("requests") | st.just("partners"))
def test_every_json_line_is_counted_once(dry_run, lines, kind):
    """Rows read = added + changed + unchanged + refused, whatever the lines contain."""
    # The columns of the first row of --kind must be known, or the whole file is refused.
    first = (
        '{"kind": "requests", "external_id": "X-1"}' if kind == "requests" else '{"kind": "partners", "code": "DE-1"}'
    )

    found = dry_run("\n".join([first, *lines]), kind)

    assert reads(found) == 1 + sum(1 for line in lines if line.strip())


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20) | st.sampled_from(
    [LONG, "main", "main-desk-1"]
)


@FILES
@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6))
def test_every_csv_record_is_counted_once(dry_run, records):
    """Rows read = added + changed + unchanged + refused, whatever the cells contain."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([["code", "name", "delivery_code"], *records])

    found = dry_run(text.getvalue(), "partners")

    assert reads(found) == sum(1 for record in records if any(cell.strip() for cell in record))


def test_file_without_rows_is_refused_as_a_whole(dry_run):
    """A file of damage alone does not show its kind."""
    with pytest.raises(ImportFileError, match="kind"):
        dry_run("{\n")
