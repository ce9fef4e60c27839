# SPDX-License-Identifier: Apache-2.0
"""`bookdrop stations` on both databases: its output, and the keys that are valid afterwards."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import insert, select, update

from schemas.models import Printer, Station, StationHeartbeat, table
from tasks.events.stations import load_stations
from tasks.events.validation import validate
from tasks.privacy.task import purge_links
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tasks.stations.administration import RefusedStationError, erase_expired_keys, rotate_key
from tests.library import KEY
from workers.cli import main

CODE = "main-desk-1"


@pytest.fixture
def run(library, database_url, monkeypatch, tmp_path):
    """Run `bookdrop ...`; the library of the tests is there already, and no broker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    monkeypatch.setenv("BOOKDROP_BROKER_URL", "redis://127.0.0.1:1/0")
    return lambda *arguments: CliRunner().invoke(main, [str(each) for each in arguments])


def station(engine, code=CODE):
    with engine.connect() as connection:
        return connection.execute(select(table(Station)).where(Station.code == code)).one()


def listed(run, code=CODE):
    result = run("stations", "list", "--json")
    assert result.exit_code == 0, result.output
    return {each["station"]: each for each in json.loads(result.stdout)["stations"]}[code]


def accepted(context, library, now, *keys):
    """For each key, true if a worker accepts an event that is signed with it at `now`."""
    with context.sessions() as session:
        verified = [
            validate(
                [Received(library.scan("31000000017", key=key), None)],
                RETURN_HANDLER.accepts,
                lambda codes: load_stations(session, now, codes),
            )[0]
            for key in keys
        ]
    return [bool(each) for each in verified]


def test_added_station_has_its_settings_and_no_other_key(run, engine):
    """The command prints the settings once, the check of replies among them; the list shows the station, and no key."""
    result = run("stations", "add", "main-desk-9", "--branch", "main", "--printer", "main-slips")
    settings = dict(line.split("=", 1) for line in result.stdout.splitlines() if line.startswith("BOOKDROP_"))

    row = listed(run, "main-desk-9")

    assert result.exit_code == 0, result.output
    assert settings == {
        "BOOKDROP_STATION_CODE": "main-desk-9",
        "BOOKDROP_STATION_KEY": station(engine, "main-desk-9").key,
        "BOOKDROP_STATION_REQUIRE_SIGNED_REPLIES": "true",
    }
    assert re.fullmatch("[0-9a-f]{64}", settings["BOOKDROP_STATION_KEY"])
    assert (row["branch"], row["printer"], row["enabled"], row["overlap_until"]) == ("main", "main-slips", True, None)
    assert 0 <= row["key_age_seconds"] < 3600


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((CODE, "--branch", "main"), f"rotate-key {CODE}"),
        (("main-desk-9", "--branch", "nowhere"), "no branch nowhere"),
        (("main-desk-9", "--branch", "main", "--printer", "none"), "no printer none"),
        (("Main Desk", "--branch", "main"), "lower case"),
        (("x" * 41, "--branch", "main"), "lower case"),
        (("main-desk-9\n", "--branch", "main"), "lower case"),
    ],
)
def test_station_that_cannot_be_added_is_refused(run, engine, arguments, words):
    """The refusal names the next step, and nothing is stored."""
    before = station(engine)

    result = run("stations", "add", *arguments)

    assert result.exit_code == 1
    assert words in result.stderr
    assert "Nothing was changed." in result.stderr
    assert station(engine) == before


def test_rotated_key_and_the_former_one_are_valid_in_the_overlap(run, engine, library, context):
    """Both keys sign until the end of the overlap, the former one not at it and after it."""
    rotated = json.loads(run("stations", "rotate-key", CODE, "--overlap", "2d", "--json").stdout)
    until = datetime.fromisoformat(rotated["previous_key_valid_until"])

    row = station(engine)
    at = [
        accepted(context, library, moment, rotated["key"], KEY)
        for moment in (row.previous_key_until - timedelta(microseconds=1), row.previous_key_until)
    ]

    assert row.key == rotated["key"] != KEY
    assert timedelta(days=2) - timedelta(hours=1) < until - datetime.now(UTC) <= timedelta(days=2)
    assert at == [[True, True], [True, False]]
    assert listed(run)["overlap_until"] is not None


def test_default_overlap_is_three_days(run, engine):
    """Without an option the former key is valid for 72 hours."""
    result = run("stations", "rotate-key", CODE)

    row = station(engine)

    assert result.exit_code == 0, result.output
    assert row.previous_key_until - row.key_since == timedelta(hours=72)
    assert f"BOOKDROP_STATION_KEY={row.key}\n" in result.stdout
    assert f"{row.previous_key_until:%Y-%m-%d %H:%M} UTC" in result.stdout


def test_rotation_now_ends_every_earlier_key(run, engine, library, context):
    """With --now, also in an open overlap, the new key alone is valid."""
    first = json.loads(run("stations", "rotate-key", CODE, "--json").stdout)["key"]

    second = json.loads(run("stations", "rotate-key", CODE, "--now", "--json").stdout)

    assert second["previous_key_valid_until"] is None
    assert accepted(context, library, context.now(), second["key"], first, KEY) == [True, False, False]
    assert (station(engine).previous_key, station(engine).previous_key_until) == (None, None)


def test_second_rotation_in_an_overlap_is_refused(run, engine):
    """It would end a key that the station may still have; the refusal names the end of the overlap and --now."""
    run("stations", "rotate-key", CODE)
    before = station(engine)

    result = run("stations", "rotate-key", CODE)

    assert result.exit_code == 1
    assert f"{before.previous_key_until:%Y-%m-%d %H:%M} UTC" in result.stderr
    assert "--now" in result.stderr
    assert station(engine) == before


@pytest.mark.parametrize("overlap", ["0h", "31d", "-1h", "1w", "72", "1.5h", "1d1h", "99999999h", "", "٣d"])
def test_overlap_out_of_range_is_a_usage_error(run, engine, overlap):
    """An overlap has a unit, is not zero, and is at most 30 days."""
    result = run("stations", "rotate-key", CODE, "--overlap", overlap)

    assert result.exit_code == 2
    assert station(engine).key == KEY


def test_now_with_an_overlap_is_a_usage_error(run, engine):
    """The two options exclude each other."""
    assert run("stations", "rotate-key", CODE, "--now", "--overlap", "1h").exit_code == 2
    assert station(engine).key == KEY


def test_disabled_station_is_refused_until_it_is_enabled(run, engine, library, context):
    """Each of its keys is refused while it is disabled; a second time changes nothing."""
    new_key = json.loads(run("stations", "rotate-key", CODE, "--json").stdout)["key"]

    disabled = [json.loads(run("stations", "disable", CODE, "--json").stdout) for _ in range(2)]
    while_disabled = accepted(context, library, context.now(), new_key, KEY)
    is_enabled = listed(run)["enabled"]
    enabled = run("stations", "enable", CODE)

    assert [each["changed"] for each in disabled] == [True, False]
    assert (while_disabled, is_enabled) == ([False, False], False)
    assert enabled.stdout == f"Station {CODE} is enabled.\n"
    assert accepted(context, library, context.now(), new_key, KEY) == [True, True]


@pytest.mark.parametrize("command", ["rotate-key", "disable", "enable"])
def test_unknown_station_is_refused(run, command):
    """The refusal names the command that lists the stations."""
    result = run("stations", command, "west-desk-1")

    assert result.exit_code == 1
    assert "bookdrop stations list" in result.stderr
    assert "Nothing was changed." in result.stderr


def test_list_shows_no_key_and_the_last_event(run, engine, library):
    """Each station is a line: state, age of the key, overlap and last event. No key is in the output."""
    rotated = json.loads(run("stations", "rotate-key", CODE, "--json").stdout)["key"]
    with engine.begin() as connection:
        printer = connection.execute(select(Printer.id).limit(1)).scalar_one()
        connection.execute(
            update(Station).where(Station.code == "main-desk-2").values(active=False, printer_id=printer)
        )
        connection.execute(
            insert(StationHeartbeat).values(station=CODE, at=datetime(2026, 3, 2, 12, tzinfo=UTC), held=0)
        )

    text, as_json = (run("stations", "list", *options).stdout for options in ((), ("--json",)))

    first, second, _ = text.splitlines()
    assert all(part in first for part in (CODE, "enabled", "key age 0 min", "2026-03-02 12:00 UTC", "valid until"))
    assert all(part in second for part in ("disabled", "main-slips", "key age unknown", "last event -"))
    assert not any(key in text + as_json for key in (rotated, KEY))


def test_expired_key_is_erased_by_housekeeping(library, engine, context, clock, in_worker):
    """The purge erases the former key after its overlap, and not before."""
    with context.unit_of_work() as uow:
        rotate_key(uow.session, uow.now, CODE, "a-newer-key-of-the-tests", timedelta(hours=1))

    purge_links()
    during = station(engine).previous_key
    clock.now += timedelta(hours=1)
    purge_links()
    after = station(engine)

    assert (during, after.previous_key, after.previous_key_until) == (KEY, None, None)
    assert after.key == "a-newer-key-of-the-tests"


def test_overlap_after_an_expired_one_is_permitted(library, context, clock):
    """An expired overlap that housekeeping has not erased yet does not refuse the next rotation."""
    keys = [f"key-number-{number}-of-the-tests" for number in range(3)]
    for key in keys[:2]:
        with context.unit_of_work() as uow:
            rotate_key(uow.session, uow.now, CODE, key, timedelta(hours=1))
        clock.now += timedelta(hours=1)

    with context.unit_of_work() as uow:
        until = rotate_key(uow.session, uow.now, CODE, keys[2], timedelta(hours=1))
    with context.unit_of_work() as uow, pytest.raises(RefusedStationError):
        rotate_key(uow.session, uow.now, CODE, "another-key-of-the-tests", timedelta(hours=1))
    with context.unit_of_work() as uow:
        erased = erase_expired_keys(uow.session, uow.now)

    assert until == clock.now + timedelta(hours=1)
    assert erased == 0


def test_import_with_rotate_keys_ends_every_earlier_key(run, engine, tmp_path):
    """An import has no overlap: it stores the key, and erases the previous one. Without a new key nothing changes."""
    run("stations", "rotate-key", CODE)
    before = station(engine)
    unchanged, changed = tmp_path / "unchanged.csv", tmp_path / "changed.csv"
    unchanged.write_text(f"code,branch,key\n{CODE},main,{before.key}\n", encoding="utf-8")
    changed.write_text(f"code,branch,key\n{CODE},main,an-imported-key-of-the-tests\n", encoding="utf-8")

    first = run("import", unchanged, "--kind", "stations", "--rotate-keys")
    between = station(engine)
    second = run("import", changed, "--kind", "stations", "--rotate-keys")
    after = station(engine)

    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    assert between == before
    assert (after.key, after.previous_key, after.previous_key_until) == ("an-imported-key-of-the-tests", None, None)
    assert after.key_since > before.key_since


def test_imported_station_has_an_age_of_its_key(run, engine, tmp_path):
    """A new station's key is as old as its import, also with `bookdrop add`, which names the check of replies."""
    file = tmp_path / "stations.csv"
    file.write_text("code,branch,key\nmain-desk-8,main,an-imported-key-of-the-tests\n", encoding="utf-8")

    imported = run("import", file, "--kind", "stations")
    added = run("add", "stations", "code=main-desk-9", "branch=main")

    assert (imported.exit_code, added.exit_code) == (0, 0), imported.output + added.output
    assert "BOOKDROP_STATION_REQUIRE_SIGNED_REPLIES=true" in added.stdout
    assert None not in {station(engine, code).key_since for code in ("main-desk-8", "main-desk-9")}


def test_branches_are_listed_with_time_zone_and_courier_code(run, library):
    """Each branch is listed with its time zone and its own courier code; without a time zone that of the machine applies."""
    added = run("add", "branches", "code=main", "timezone=Europe/Berlin", "delivery_code=OPL-07")
    shown = run("branches", "list").stdout.splitlines()
    records = json.loads(run("branches", "list", "--json").stdout)["branches"]

    assert added.exit_code == 0, added.output
    assert [row.split()[0] for row in shown] == [record["branch"] for record in records]
    [main_branch] = [record for record in records if record["branch"] == "main"]
    assert (main_branch["timezone"], main_branch["delivery_code"], main_branch["printer"]) == (
        "Europe/Berlin",
        "OPL-07",
        "main-slips",
    )
    [line] = [row for row in shown if row.startswith("main ")]
    assert "Europe/Berlin" in line
    assert "OPL-07" in line
    assert "time zone of the machine" in next(row for row in shown if row.startswith("north "))
