# SPDX-License-Identifier: Apache-2.0
"""`bookdrop import`, on both databases: good rows kept, bad ones told, nothing twice."""

import json

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select

from schemas.models import Item, ItemBarcode, Loan, Partner, Patron, Request
from schemas.request_status import RequestStatus
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
{"kind": "patrons", "number": "P1", "name": "Test Reader 1"}
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
    """A request that went home is not taken back by a file; nor is a discharged loan opened again."""
    run(EVERYTHING)
    run(EVERYTHING.replace("Loaned to patron", "Returned item to partner").replace('"due_at"', '"discharged_at"'))

    result = report(run(EVERYTHING, "--json"))

    assert [bad["line"] for bad in result["refused"]] == [2, 5]
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
