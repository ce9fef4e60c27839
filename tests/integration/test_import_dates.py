# SPDX-License-Identifier: Apache-2.0
"""Due dates end with their day in the time zone of the branch; a loan is not due before it began."""

import json
from datetime import UTC, date, datetime

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from schemas.models import Branch, Loan
from tasks.data_import.due_dates import end_of_day
from workers.cli import main


@pytest.fixture
def run(library, database_url, monkeypatch, tmp_path):
    """Run a command, or an import of rows as JSON Lines; return its report."""
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)

    def run(*rows, options=()):
        (tmp_path / "rows").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        result = CliRunner().invoke(main, ["import", str(tmp_path / "rows"), "--json", *options])
        assert result.exit_code in (0, 1), result.output
        return json.loads(result.stdout)

    return run


def zone(code, name):
    return {"kind": "branches", "code": code, "timezone": name}


def lent(request, branch, barcode, status="Loaned to patron"):
    """A request at a branch with its item."""
    return [
        {"kind": "requests", "external_id": request, "partner": "XX-RUL", "branch": branch, "status": status, "title": "T"},
        {"kind": "items", "request": request, "barcode": barcode},
    ]  # fmt: skip


def loan(barcode, due, **more):
    return {"kind": "loans", "barcode": barcode, "loaned_at": "2026-11-01T10:00:00Z", "due_at": due, **more}


def due_times(engine):
    with engine.connect() as connection:
        return [row.due_at for row in connection.execute(select(Loan.due_at).order_by(Loan.id))]


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_due_date_ends_in_the_zone_of_the_branch(run, engine):
    """Winter and summer time, west and east of Greenwich; a time with a zone is kept."""
    run(zone("main", "America/New_York"), zone("north", "Pacific/Auckland"))
    rows = [
        *lent("X-1", "main", "A1"),
        *lent("X-2", "north", "A2"),
        *lent("X-3", "main", "A3"),
        *lent("X-4", "main", "A4"),
    ]
    loans = [
        loan("A1", "2026-12-01"),
        loan("A2", "2026-12-01"),
        loan("A3", "2027-06-01"),
        loan("A4", "2026-12-01T12:00Z"),
    ]

    first, second = run(*rows, *loans), run(*rows, *loans)

    assert (first["refused"], second["unchanged"]) == ([], len(rows + loans))
    assert due_times(engine) == [
        at("2026-12-02T04:59:59"), at("2026-12-01T10:59:59"), at("2027-06-02T03:59:59"), at("2026-12-01T12:00:00"),
    ]  # fmt: skip


def test_zone_is_that_of_the_open_request(run, engine):
    """A reused barcode: the closed request's branch does not matter. An item of the library uses the machine's zone."""
    run(zone("main", "America/New_York"), zone("north", "Pacific/Auckland"))
    run(*lent("X-2", "north", "A1"), *lent("X-1", "main", "A1", "Returned item to partner"))
    run({"kind": "items", "barcode": "OURS"})

    run({**loan("OURS", "2026-12-01")})
    found = run(loan("A1", "2026-12-01"))

    assert found["refused"] == [] or "reused" in found["refused"][0]["reason"]
    assert due_times(engine)[0] == datetime(2026, 12, 1, 23, 59, 59).astimezone(UTC)
    assert due_times(engine)[1:] in ([at("2026-12-01T10:59:59")], [])


@pytest.mark.parametrize("due", ["2026-10-31", "2026-11-01T09:59:59Z", "2026-11-01"])
def test_loan_due_before_it_began_is_refused(run, engine, due):
    """The day of the loan may be over in the branch's zone; a wrong year or month is damage."""
    run(zone("main", "America/New_York"))
    run(*lent("X-1", "main", "A1"))
    row = loan("A1", due) if due != "2026-11-01" else {**loan("A1", due), "loaned_at": "2026-11-02T06:00:00Z"}

    found = run(row)

    assert "due_at is before the loan began" in found["refused"][0]["reason"]
    assert due_times(engine) == []


def test_due_on_the_day_of_the_loan_is_stored(run, engine):
    """A loan for one day ends with it."""
    run(*lent("X-1", "main", "A1"), zone("main", "UTC"))

    assert run(loan("A1", "2026-11-01"))["added"] == 1
    assert due_times(engine) == [at("2026-11-01T23:59:59")]


@pytest.mark.parametrize("value", [20261201, 1.5, True, "46357", "01/12/2026", "tomorrow"])
def test_other_value_is_not_a_date(run, engine, value):
    """A number of a spreadsheet is not a date, and no format is guessed."""
    run(*lent("X-1", "main", "A1"))

    assert "due_at" in run(loan("A1", value))["refused"][0]["reason"]


@pytest.mark.parametrize(
    "name", ["Europe/Nowhere", "../etc/passwd", "/etc/localtime", "Europe", "posix/Europe/Berlin", "+01:00", "a" * 65]
)
def test_unknown_time_zone_is_refused(run, engine, name):
    """A branch keeps its zone when a row names one that does not exist."""
    run(zone("main", "Europe/Berlin"))

    found = run(zone("main", name))

    assert "timezone" in found["refused"][0]["reason"]
    with engine.connect() as connection:
        assert connection.execute(select(Branch.timezone).where(Branch.code == "main")).scalar_one() == "Europe/Berlin"


def test_time_zone_is_kept_or_removed(run, engine):
    """A row without the column keeps the zone; an empty value removes it."""
    zones = []
    for row in (zone("main", "Europe/Berlin"), {"kind": "branches", "code": "main", "name": "N"}, zone("main", "")):
        run(row)
        with engine.connect() as connection:
            zones.append(connection.execute(select(Branch.timezone).where(Branch.code == "main")).scalar_one())

    assert zones == ["Europe/Berlin", "Europe/Berlin", None]


ZONES = st.sampled_from(
    ["UTC", "America/New_York", "Pacific/Auckland", "Africa/Cairo", "America/Sao_Paulo", "Asia/Kathmandu"]
)


@given(day=st.dates(), zone=ZONES)
def test_end_of_a_day_is_a_time_in_utc(day, zone):
    """Every day of every zone has an end, in order and within a day of the date in UTC."""
    end = end_of_day(day, zone)

    assert end.tzinfo is UTC
    assert abs((end.date() - day).days) <= 1
    if day < date(9999, 12, 1):
        assert end < end_of_day(date.fromordinal(day.toordinal() + 2), zone)
