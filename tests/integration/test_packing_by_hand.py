# SPDX-License-Identifier: Apache-2.0
"""From the scan to the packed parcel at a terminal: the slip comes out, is checked against its item, and is reprinted."""

import json
import os
import subprocess
import sys
import time

import pytest

from schemas.database import open_engine
from tests.library import KEY, Library
from tests.wire import worker

pytestmark = [pytest.mark.long, pytest.mark.thorough]


def test_scan_pack_and_reprint_by_commands(broker_url, sqlite_url, tmp_path):
    """Scanned, printed, packed with the right and the wrong item, at the prompt and by command; then a copy."""
    engine = open_engine(sqlite_url)
    library = Library(engine, tmp_path / "spool").open()
    external_id, [barcode] = library.request()
    _, [other] = library.request()
    engine.dispose()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")}
    clean |= {"BOOKDROP_BROKER_URL": broker_url, "NO_COLOR": "1"}

    def run(module, *arguments, typed="", **more):
        return subprocess.run(
            [sys.executable, "-m", module, *arguments], env={**clean, **more}, cwd=tmp_path, text=True, timeout=60,
            input=typed, capture_output=True, check=False,
        )  # fmt: skip

    def station(*arguments, typed=""):
        return run(
            "stations.cli", *arguments, typed=typed, BOOKDROP_STATION_CODE="main-desk-1", BOOKDROP_STATION_KEY=KEY,
            BOOKDROP_STATION_JOURNAL=str(tmp_path / "desk.journal"),
        )  # fmt: skip

    def slips(*arguments):
        done = run("workers.cli", "prints", *arguments, "--json", BOOKDROP_DATABASE_URL=sqlite_url)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)["slips"]

    def wait_for(number):
        deadline = time.monotonic() + 30
        while len(out := [each for each in slips("list") if each["state"] == "done"]) < number:
            assert time.monotonic() < deadline, slips("list")
        return out

    parts = {"broker_url": broker_url, "database_url": sqlite_url, "folder": tmp_path}
    with worker("returns", **parts), worker("printing", "--branch", "main", **parts):
        assert station("scan", barcode).returncode == 0
        [slip] = wait_for(1)
        unseen = slips("unconfirmed")
        wrong = station("pack", f"BD:{slip['slip']}", other)
        as_item = station("scan", f"BD:{slip['slip']}")
        at_the_desk = station("desk", typed=f"BD:{slip['slip']}\n{barcode}\n:reprint torn\n")
        wait_for(1)
        copied = station("reprint", "last", "--reason", "torn again")
        seen = slips("unconfirmed")

    assert [each["request"] for each in unseen] == [external_id]
    assert (wrong.returncode, "WRONG SLIP" in wrong.stdout) == (1, True)
    assert (as_item.returncode, "code of a slip" in as_item.stdout) == (1, True)
    assert "Now scan the item" in at_the_desk.stdout
    assert "Slip and item belong together: to Riverside University Library" in at_the_desk.stdout
    assert "Copy 2 of the slip is on its way" in at_the_desk.stdout
    assert copied.returncode in {0, 1}  # the second copy may still be on its way
    assert slip["slip"] not in [each["slip"] for each in seen]
    assert {path.name for path in library.spool.rglob("*.pdf")} >= {f"{slip['slip']}.pdf"}
    assert [path for path in library.spool.rglob("*.pdf") if path.name.endswith("-copy2.pdf")]
