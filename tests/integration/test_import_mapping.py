# SPDX-License-Identifier: Apache-2.0
"""Mappings: a mapping that does not fit is reported before the first row; the contained one loads Alma's exports."""

import csv
import io
import json
import random
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select

from schemas.models import Item, ItemBarcode, Request
from schemas.request_status import RequestStatus
from workers.cli import main

PAGE = Path(__file__).parents[2] / "docs/reference/import-mapping.md"


@pytest.fixture
def run(library, database_url, monkeypatch, tmp_path):
    """Import a text through the text of a mapping, or through a contained mapping."""
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)

    def run(text, mapping, *options, kind="requests"):
        (tmp_path / "rows").write_text(text, encoding="utf-8", newline="")
        if mapping not in ("alma", None):
            (tmp_path / "map.toml").write_text(mapping, encoding="utf-8")
            mapping = "map.toml"
        named = (["--mapping", mapping] if mapping else []) + (["--kind", kind] if kind else [])
        return CliRunner().invoke(main, ["import", "rows", *named, "--json", *options])

    return run


def report(result):
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)


def count(engine, model):
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(model)).scalar_one()


TEXT = "ID;Lender;Titel;State\nE-9;XX-RUL;Ein Buch;ON LOAN\n"
COLUMNS = '[columns]\nID = "external_id"\nLender = "partner"\nTitel = "title"\nState = "status"\n'
REST = '[values.status]\n"ON LOAN" = "Loaned to patron"\n[constants]\nbranch = "main"\n'


@pytest.mark.parametrize(
    ("text", "mapping", "words"),
    [
        (TEXT, COLUMNS.replace("Titel", "Title") + REST, "names a column 'Title' that .* does not have. .*Did you mean 'Titel'"),
        (TEXT, COLUMNS + 'Colour = "author"\n' + REST, "names a column 'Colour'"),
        (TEXT, COLUMNS.replace('"title"', '"partner"') + REST, "both 'Lender' and 'Titel' to partner"),
        (TEXT, COLUMNS.replace('Titel = "title"', 'title = "Titel"') + REST, "on the left.*'Titel' = 'title'"),
        (TEXT, COLUMNS.replace('"title"', '"titel"') + REST, "which is not a column of bookdrop"),
        (TEXT, COLUMNS.replace('"title"', '"uri"') + REST, "which is not a column of bookdrop"),
        (TEXT, COLUMNS + '[values.author]\nA = "B"\n' + REST, "values for 'author', but no column"),
        (TEXT, COLUMNS + '[values.State]\nA = "B"\n' + REST, "values for 'State', which is not a column"),
        (TEXT, COLUMNS + '[dates]\ncreated_at = "%d.%m.%Y"\n' + REST, "dates for 'created_at', but no column"),
        (TEXT, COLUMNS + '[dates]\ntitle = "%d.%m.%Y"\n' + REST, "not a column of dates"),
        (TEXT, COLUMNS + '[dates]\nformat = "%d.%m"\n' + REST, "not a date format"),
        (TEXT, COLUMNS + "[dates]\nformat = 5\n" + REST, "not a date format"),
        (TEXT, COLUMNS + '[constant]\nbranch = "main"\n', "unknown table"),
        (TEXT, COLUMNS + '[constants]\nbrunch = "main"\n', "constants for 'brunch'"),
        (TEXT, COLUMNS + "[constants]\nbranch = [1]\n", "constant 'branch'"),
        (TEXT, "columns = 5\n", "not a table"),
        (TEXT, "[columns]\nID = 5\n", "not a text"),
        (TEXT, "[values]\nstatus = 5\n", "not a table"),
        (TEXT, "[columns\n", "as TOML"),
        (TEXT, 'extends = "sierra"\n', "extends 'sierra'"),
        (TEXT, COLUMNS + '[values.status]\n"on loan" = "Expired"\n' + REST.partition("\n")[2], "differ in case"),
        (TEXT.replace("Titel", "ID"), COLUMNS.replace('Titel = "title"\n', "") + REST, "column 'ID' twice"),
        (TEXT.replace("Titel", "id"), COLUMNS.replace('Titel = "title"\n', "") + REST, "column 'id' twice"),
        ("external_id,title,title\nE-9,A,B\n", None, "column 'title' twice"),
        (TEXT.replace("Lender", "Kind"), '[optional_columns]\nID = "title"\nKind = "title"\n' + REST, "both become title"),
        (TEXT, '[items.columns]\nID = "request"\n', "none for requests"),
        ('{"ID": "E-9"}\n', COLUMNS + REST, "names a column 'Lender'"),
    ],
)  # fmt: skip
def test_mapping_that_does_not_fit_is_reported_before_the_first_row(run, engine, text, mapping, words):
    """The mapping and the next step are named; nothing is stored."""
    result = run(text, mapping)

    assert result.exit_code == 2, (result.output, result.exception)
    assert re.search(words, result.stderr.replace("\n", " ")), result.stderr
    assert "Nothing was imported." in result.stderr
    assert count(engine, Request) == 0


@pytest.mark.parametrize("name", ["no-such-mapping", "alma.toml", "../alma", ""])
def test_missing_mapping_is_reported(run, name):
    """A name that is neither a file nor a contained mapping."""
    result = CliRunner().invoke(main, ["import", "rows", "--kind", "requests", "--mapping", name])

    assert result.exit_code == 2
    assert not result.exception or isinstance(result.exception, SystemExit)


def test_mapping_without_kind_needs_it_for_tables_of_kinds(run):
    """The contained mapping has tables for several kinds."""
    result = run("Partner Code,Partner Name\nDE-1,N\n", "alma", kind=None)

    assert result.exit_code == 2
    assert "Name the kind of the rows with --kind" in result.stderr


def test_doubled_header_that_is_dropped_does_no_harm(run):
    """A column that the mapping does not name may occur twice."""
    found = report(run("ID;Lender;Titel;State;Note;Note\nE-9;XX-RUL;T;ON LOAN;a;b\n", COLUMNS + REST))

    assert found["added"] == 1


def test_names_and_values_are_compared_without_case(run, engine):
    """Case, white space and the kind of dash of headers and values do not matter."""
    text = "\ufeffid ;LENDER;titel;State\nE-9;XX-RUL;T;received \u2013  Not For loan\n"
    mapping = (
        COLUMNS
        + '[values.status]\n"Received - not for loan" = "Received - not for loan"\n[constants]\nbranch = "main"\n'
    )

    assert report(run(text, mapping))["added"] == 1
    with engine.connect() as connection:
        assert connection.execute(select(Request.status)).scalar_one() is RequestStatus.RECEIVED_NOT_FOR_LOAN


@pytest.mark.parametrize(
    ("form", "value", "stored"),
    [
        ('"%d/%m/%Y %H:%M %z"', "28/11/2026 18:30 +0200", "2026-11-28 16:30"),
        ('["iso", "%d.%m.%Y %H:%M%z"]', "2026-11-28T18:30Z", "2026-11-28 18:30"),
        ('["iso", "%d.%m.%Y %H:%M%z"]', "28.11.2026 18:30Z", "2026-11-28 18:30"),
        ('"%d/%m/%Y"', "11/28/2026", None),
        ('"%d/%m/%Y"', "2026-11-28", None),
    ],
)
def test_named_date_formats(run, engine, form, value, stored):
    """Only the named formats are read: no day is taken for a month."""
    text = TEXT.replace("State\n", "State;Made\n").replace("LOAN\n", f"LOAN;{value}\n")

    found = report(run(text, COLUMNS + 'Made = "created_at"\n' + REST + f"[dates]\ncreated_at = {form}\n"))

    if stored is None:
        assert "is not a date in the form" in found["refused"][0]["reason"]
    else:
        with engine.connect() as connection:
            assert f"{connection.execute(select(Request.created_at)).scalar_one():%Y-%m-%d %H:%M}" == stored


def test_options_replace_constants_and_dates(run, engine):
    """`--set` and `--date-format` complete a mapping without a file."""
    text = "External Identifier,Partner Code,Status,Title,Creation Date\nE-9,XX-RUL,Overdue,T,11/28/2026 10:00Z\n"

    found = report(run(text, "alma", "--set", "branch=main", "--date-format", "%m/%d/%Y %H:%M%z"))

    assert found["added"] == 1, found
    with engine.connect() as connection:
        assert f"{connection.execute(select(Request.created_at)).scalar_one():%Y-%m-%d}" == "2026-11-28"


@pytest.mark.parametrize("option", [["--set", "brunch=main"], ["--set", "branch"], ["--date-format", "%d"]])
def test_unusable_option_is_refused(run, option):
    """An unknown column and a format without a year."""
    assert run(TEXT, COLUMNS + REST, *option).exit_code == 2


def test_mapping_extends_the_contained_one(run, engine):
    """A library's file adds its codes, and replaces single entries."""
    text = "External Identifier,Partner Code,Library Code,Status,Title,Sprache\nE-9,XX-RUL,MAIN,Ausgeliehen,T,de\n"
    mapping = (
        'extends = "alma"\n[requests.values.branch]\nmain = "main"\n'
        '[requests.values.status]\nAusgeliehen = "Loaned to patron"\n[requests.optional_columns]\nSprache = "damage_note"\n'
    )

    assert report(run(text, mapping))["added"] == 1
    with engine.connect() as connection:
        assert connection.execute(select(Request.status, Request.damage_note)).one() == (RequestStatus.LOANED, "de")


STATUSES = {
    "Created borrowing request": "created", "Locate in process": "created", "Pending approval": "created",
    "Ready to be sent": "ready_to_be_sent", "Request sent to partner": "request_sent",
    "Waiting for cancel response": "request_sent", "Will supply": "will_supply", "Conditional": "conditional",
    "Shipped Physically": "shipped_physically", "Physically received by library": "received",
    "Received \u2013 not for loan": "received_not_for_loan", "Loaned Item to Patron": "loaned",
    "Loaned item to patron": "loaned", "Renew requested": "renew_requested", "Renewed by partner": "renewed",
    "Renew request not accepted": "renew_not_accepted", "Mediated patron renewal": "mediated_renewal",
    "Overdue request": "overdue", "Recalled by partner": "recalled", "Returned by patron": "returned_by_patron",
    "Damaged communicated": "damaged", "Report lost item to partner": "lost", "Declared lost by partner": "declared_lost",
    "Returned item to partner": "returned_to_partner", "Lender check in": "completed", "Request Completed": "completed",
    "Cancelled by patron": "canceled_by_patron", "Canceled by partner": "canceled_by_partner",
    "Cancelled by staff": "canceled_by_staff", "Expired": "expired", "Rejected by partner": "rejected",
}  # fmt: skip
TITLES = [
    "Die Verwandlung",
    'The "New" Atlas, vol. 2',
    "Война и мир : роман",
    "A title\nover two lines",
    "T" * 1500,
    "L'été; récit",
]


def alma_export(rows, *, bom=True):
    """A CSV file as Alma Analytics writes it: every value quoted, CR LF, a byte order mark."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return ("\ufeff" if bom else "") + text.getvalue()


def nightly(number):
    """Borrowing requests and their items of one night, in Alma's words."""
    chance = random.Random(7)
    requests, items = [], []
    for index in range(number):
        identifier, status = f"01BRI_INST{index:07}", list(STATUSES)[index % len(STATUSES)]
        requests.append(
            {
                "Borrowing Request Status": status, "External Request ID": identifier, "Internal ID": str(10**9 + index),
                "Title": chance.choice(TITLES), "Author": chance.choice(["Kafka, Franz, 1883-1924", ""]), "Publisher": "P",
                "Partner Code": f"DE-{index % 7}", "Partner Name": "-", "Requested Format": "Physical",
                "Creation Date": f"{index % 28 + 1:02}/{index % 12 + 1:02}/2026", "Needed By Date": "", "ISBN": "9783161484100",
            }
        )  # fmt: skip
        items.append(
            {"External Request ID": identifier, "Barcode": chance.choice([f'="3{index:013}"', f"3{index:013}", f"\u00a03{index:013} "]),
             "Temporary Barcode": chance.choice(["", f"ILL-{index:05}"]), "Description": "", "Title": "T"}
        )  # fmt: skip
    return alma_export(requests), alma_export(items)


def test_nightly_alma_export_is_unchanged_the_second_time(run, engine):
    """Partners, requests and items load through the contained mapping; the same night again changes nothing."""
    requests, items = nightly(300)
    partners = alma_export(
        [{"Partner Code": f"DE-{n}", "Partner Name": f"Library {n}", "Status": "Active"} for n in range(7)]
    )
    options = ("--set", "branch=main", "--date-format", "%d/%m/%Y")

    def night():
        return [
            report(run(partners, "alma", kind="partners")),
            report(run(requests, "alma", *options)),
            report(run(items, "alma", kind="items")),
        ]

    first, second = night(), night()

    assert [found["refused"] for found in first + second] == [[]] * 6
    assert [found["added"] for found in first] == [7, 300, 300]
    assert [(found["read"], found["unchanged"]) for found in second] == [(7, 7), (300, 300), (300, 300)]
    assert {row["kind"] for row in first[1]["shortened"]} == {"requests"}
    with engine.connect() as connection:
        statuses = connection.execute(select(Request.external_id, Request.status).order_by(Request.id)).all()
        barcodes = set(connection.execute(select(ItemBarcode.barcode).where(~ItemBarcode.temporary)).scalars())
    assert [row.status.value for row in statuses] == [list(STATUSES.values())[n % len(STATUSES)] for n in range(300)]
    assert barcodes == {f"3{n:013}" for n in range(300)}
    assert count(engine, Item) == 300


def test_damaged_barcodes_of_an_export_are_refused(run, engine):
    """A barcode in the short form of a number is refused with the reason; the others are stored."""
    requests, _ = nightly(2)
    run(alma_export([{"Partner Code": f"DE-{n}", "Partner Name": "N"} for n in range(7)]), "alma", kind="partners")
    run(requests, "alma", "--set", "branch=main", "--date-format", "%d/%m/%Y")
    rows = [
        {"External Request ID": "01BRI_INST0000000", "Barcode": "3.00E+13"},
        {"External Request ID": "01BRI_INST0000001", "Barcode": '\ufeff3000000000001.0|\'0012|="A-1"'},
    ]

    found = report(run(alma_export(rows), "alma", kind="items"))

    assert [row["line"] for row in found["refused"]] == [2]
    assert "spreadsheet" in found["refused"][0]["reason"]
    with engine.connect() as connection:
        assert set(connection.execute(select(ItemBarcode.barcode)).scalars()) == {"3000000000001", "0012", "A-1"}


def test_documented_mapping_is_valid(run):
    """The example of the reference page is read."""
    [example] = re.findall(r"```toml\n(# example.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    header = re.findall(
        r'^"?([^"=\n]+?)"? = "(?:external_id|partner|title|status|created_at|author)"', example, re.MULTILINE
    )

    found = report(run(",".join(header) + "\n" + ",".join("XX-RUL" for _ in header) + "\n", example))

    assert (found["read"], found["added"]) == (1, 0)
