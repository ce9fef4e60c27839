# SPDX-License-Identifier: Apache-2.0
"""From the scan to the packed parcel by commands: the slip is printed, checked against its item, and reprinted."""

import json

import pytest

from tests.polling import wait_until
from tests.slips import slip_id

pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.databases("sqlite")]


def test_commands_scan_pack_and_reprint(deployment, library):
    """Scanned, printed, packed with the right and the wrong item, at the prompt and by command; then a copy."""
    external_id, [barcode] = library.request()
    _, [other] = library.request()

    def slips(*arguments):
        done = deployment.bookdrop("prints", *arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)["slips"]

    def slips_done():
        return [slip for slip in slips("list") if slip["state"] == "done"]

    with deployment.worker("returns"), deployment.worker("printing", "--branch", "main"):
        assert deployment.station("scan", barcode).returncode == 0
        [slip] = wait_until(slips_done, "the slip is done")
        unconfirmed = slips("unconfirmed")
        wrong = deployment.station("pack", f"BD:{slip['slip']}", other)
        as_item = deployment.station("scan", f"BD:{slip['slip']}")
        at_the_prompt = deployment.station("desk", stdin=f"BD:{slip['slip']}\n{barcode}\n:reprint torn\n")
        wait_until(slips_done, "the slip is done")
        copied = deployment.station("reprint", "last", "--reason", "torn again")
        unconfirmed_later = slips("unconfirmed")

    assert [slip["request"] for slip in unconfirmed] == [external_id]
    assert (wrong.returncode, "WRONG SLIP" in wrong.stdout) == (1, True)
    assert (as_item.returncode, "code of a slip" in as_item.stdout) == (1, True)
    assert "Now scan the item" in at_the_prompt.stdout
    assert "Slip and item belong together: to Riverside University Library" in at_the_prompt.stdout
    assert "Copy 2 of the slip is on its way" in at_the_prompt.stdout
    assert copied.returncode in {0, 1}  # the second copy may still be on its way
    assert slip["slip"] not in [later["slip"] for later in unconfirmed_later]
    assert {slip_id(path) for path in library.spool.rglob("*.pdf")} >= {slip["slip"]}
    assert [path for path in library.spool.rglob("*.pdf") if path.name.endswith("-copy2.pdf")]
