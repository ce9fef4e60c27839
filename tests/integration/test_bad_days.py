# SPDX-License-Identifier: Apache-2.0
"""Bad days, each with clear words, an exit code, and nothing lost."""

import json
import os
import sqlite3
import subprocess
import sys
import time

import pytest

from schemas.database import open_engine
from tests.library import KEY, LENDER, Library
from tests.wire import Wire, worker

pytestmark = pytest.mark.long


@pytest.fixture
def library(sqlite_url, tmp_path):
    """A small library on SQLite."""
    engine = open_engine(sqlite_url)
    yield Library(engine, tmp_path / "spool").open()
    engine.dispose()


@pytest.fixture
def parts(broker_url, sqlite_url, tmp_path):
    """What a worker is started with."""
    return {"broker_url": broker_url, "database_url": sqlite_url, "folder": tmp_path}


@pytest.fixture
def wire(broker_url):
    wire = Wire(broker_url)
    yield wire
    wire.close()


@pytest.fixture
def station(tmp_path):
    """Run a command of `bookdrop-station` against a broker."""

    def run(url, *arguments, key=KEY, **options):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")}
        return subprocess.run(
            [sys.executable, "-m", "stations.cli", *arguments],
            env={
                **clean,
                "BOOKDROP_STATION_CODE": "main-desk-1",
                "BOOKDROP_STATION_KEY": key,
                "BOOKDROP_STATION_BROKER_URL": url,
                "BOOKDROP_STATION_JOURNAL": str(tmp_path / "desk.journal"),
            },
            capture_output=True, text=True, timeout=60, check=False, **{"stdin": subprocess.DEVNULL, **options},
        )  # fmt: skip

    return run


def test_broker_away_keeps_the_scan(station, broker_url, parts, library):
    """With the broker away a scan is kept and said to be pending (code 3); the next command brings its answer."""
    _, [barcode] = library.request()

    away = station("redis://127.0.0.1:1/0", "scan", barcode, "--wait", "1")
    with worker("returns", **parts):
        back = station(broker_url, "desk", stdin=None, input="NO-SUCH-BARCODE\n")
        again = station(broker_url, "scan", barcode)
    listed = station(broker_url, "journal", "list", "--json")

    assert away.returncode == 3
    assert "PENDING" in away.stdout
    assert back.returncode == 0, back.stdout + back.stderr
    first = json.loads(listed.stdout.splitlines()[0])
    assert first["reply"]["outcome"] == "returned"
    assert "ALREADY RETURNED" in again.stdout


@pytest.mark.thorough
def test_database_locked_is_waited_for(wire, parts, library, tmp_path):
    """A database that somebody holds for a while: the scan waits, and is answered when it is free."""
    _, [barcode] = library.request()
    holder = sqlite3.connect(tmp_path / "bookdrop.db", isolation_level=None)

    with worker("returns", **parts):
        wire.answers(wire.send(library.scan("warm-up")))
        holder.execute("BEGIN IMMEDIATE")
        event_id = wire.send(library.scan(barcode))
        time.sleep(11)  # longer than a transaction waits for the lock
        unanswered = not any(reply["event_id"] == event_id for reply in wire.replies())
        holder.execute("ROLLBACK")
        [reply] = wire.answers(event_id, patience=60)
    holder.close()

    assert unanswered
    assert reply["outcome"] == "returned"


@pytest.mark.thorough
def test_spool_that_cannot_be_written_is_told_and_tried_again(wire, parts, library):
    """A spool in trouble: the Return stands, the station hears why, and the slip comes out by itself, once."""
    _, [barcode] = library.request()
    in_the_way = library.spool / "main"
    in_the_way.write_text("no folder")

    with (
        worker("returns", **parts),
        worker("printing", "--branch", "main", **parts),
        worker("housekeeping", **parts),
    ):
        [reply] = wire.answers(wire.send(library.scan(barcode)))
        wire.wait(wire.notices)
        in_the_way.unlink()
        slips = library.wait_for_slips(1)
        wire.wait(lambda: len(wire.notices()) == 2)

    assert reply["message"] == f"The item's destination is {LENDER}"
    assert wire.notices()[0]["state"] == "failed_safe"
    assert "not a folder" in wire.notices()[0]["message"]
    assert wire.notices()[1]["message"] == "Slip sent to the printer main-slips"
    assert slips == [f"{reply['slip']}.pdf"]


@pytest.mark.parametrize(
    ("line", "words"),
    [("", "Nothing was scanned"), ("x" * 10_000, "not an item barcode"), ("31\x00\x1b[2J7", "control characters")],
)
def test_garbage_is_refused_at_the_desk(station, broker_url, line, words):
    """An empty line, ten thousand characters, control characters: refused in words; nothing is taken or sent."""
    shown = station(broker_url, "desk", stdin=None, input=f"{line}\n")
    listed = station(broker_url, "journal", "list", "--json")

    assert words in shown.stdout
    assert "\x1b[2J" not in shown.stdout
    assert listed.stdout == ""


def test_wrong_key_is_told(station, broker_url, parts, library):
    """A station with a wrong key is refused in words that say whom to tell."""
    _, [barcode] = library.request()

    with worker("returns", **parts):
        shown = station(broker_url, "scan", barcode, key="not-its-key")

    assert shown.returncode == 1
    assert "signature is wrong" in shown.stdout
