# SPDX-License-Identifier: Apache-2.0
"""Failures of broker, database, spool and input: a clear message, an exit code, and no loss."""

import json
import time

import pytest

from tests.library import LENDER
from tests.slips import slip_id

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite")]

UNREACHABLE = "redis://127.0.0.1:1/0"


def test_scan_without_a_broker_is_kept(deployment, library):
    """Without a broker a scan is kept and reported as pending (code 3); the next command gets its reply."""
    _, [barcode] = library.request()

    disconnected = deployment.station("scan", barcode, "--wait", "1", BOOKDROP_BROKER_URL=UNREACHABLE)
    with deployment.worker("returns"):
        reconnected = deployment.station("desk", stdin="NO-SUCH-BARCODE\n")
        again = deployment.station("scan", barcode)
    listed = deployment.station("journal", "list", "--json")

    assert disconnected.returncode == 3
    assert "PENDING" in disconnected.stdout
    assert reconnected.returncode == 0, reconnected.stdout + reconnected.stderr
    first = json.loads(listed.stdout.splitlines()[0])
    assert first["reply"]["outcome"] == "returned"
    assert "ALREADY RETURNED" in again.stdout


@pytest.mark.thorough
def test_locked_database_delays_the_reply(raw_station, deployment, library, sqlite_locked):
    """While another process locks the database, the scan waits; it gets its reply after that."""
    _, [barcode] = library.request()

    with deployment.worker("returns"):
        raw_station.replies_to(raw_station.send(library.scan("warm-up")))
        with sqlite_locked():
            event_id = raw_station.send(library.scan(barcode))
            time.sleep(11)  # longer than a transaction waits for the lock
            unanswered = not any(reply["event_id"] == event_id for reply in raw_station.replies())
        [reply] = raw_station.replies_to(event_id)

    assert unanswered
    assert reply["outcome"] == "returned"


@pytest.mark.thorough
def test_unwritable_spool_delays_the_slip(raw_station, deployment, library):
    """The Return takes place, the station gets a notice with the cause, and the slip is printed once, later."""
    _, [barcode] = library.request()
    in_the_way = library.spool / "main"
    in_the_way.write_text("no folder")

    with (
        deployment.worker("returns"),
        deployment.worker("printing", "--branch", "main"),
        deployment.worker("housekeeping"),
    ):
        [reply] = raw_station.replies_to(raw_station.send(library.scan(barcode)))
        raw_station.wait_until(raw_station.notices)
        in_the_way.unlink()
        slips = library.wait_for_slips(1)
        raw_station.wait_until(lambda: len(raw_station.notices()) == 2)

    assert reply["message"] == f"The item's destination is {LENDER}"
    assert raw_station.notices()[0]["state"] == "failed_safe"
    assert "not a folder" in raw_station.notices()[0]["message"]
    assert raw_station.notices()[1]["message"] == "Slip sent to the printer main-slips"
    assert [slip_id(name) for name in slips] == [reply["slip"]]


@pytest.mark.parametrize(
    ("line", "words"),
    [("", "Nothing was scanned"), ("x" * 10_000, "not an item barcode"), ("31\x00\x1b[2J7", "control characters")],
)
def test_invalid_line_is_refused_at_the_prompt(deployment, line, words):
    """An empty line, ten thousand characters and control characters are refused; no event is stored or sent."""
    shown = deployment.station("desk", stdin=f"{line}\n")
    listed = deployment.station("journal", "list", "--json")

    assert words in shown.stdout
    assert "\x1b[2J" not in shown.stdout
    assert listed.stdout == ""


def test_wrong_key_leaves_the_scan_pending_where_replies_must_be_signed(deployment, library):
    """The unsigned refusal closes no scan: it is pending (code 3), and the warning names the key, not the message's text."""
    _, [barcode] = library.request()
    strict = {"BOOKDROP_STATION_REQUIRE_SIGNED_REPLIES": "true"}

    with deployment.worker("returns"):
        wrong = deployment.station("scan", barcode, "--wait", "20", BOOKDROP_STATION_KEY="not-its-key", **strict)
        listed = deployment.station("journal", "list", **strict)
        replayed = deployment.station("journal", "replay", "--json", **strict)
        scanned = deployment.station("scan", barcode, "--json", **strict)

    assert wrong.returncode == 3, wrong.stdout + wrong.stderr
    assert "PENDING" in wrong.stdout
    assert "signature is wrong" not in wrong.stdout + wrong.stderr
    for result in (wrong, listed):
        assert "MESSAGES IGNORED" in result.stderr
        assert "the key of this station" in result.stderr
    assert json.loads(replayed.stdout) == {"held": 1, "answered": 1, "pending": 0, "refused": []}
    assert json.loads(scanned.stdout)["outcome"] == "already_returned"
    assert "signature" not in scanned.stdout


def test_wrong_key_is_reported(deployment, library):
    """A station with a wrong key is refused with the cause."""
    _, [barcode] = library.request()

    with deployment.worker("returns"):
        shown = deployment.station("scan", barcode, BOOKDROP_STATION_KEY="not-its-key")

    assert shown.returncode == 1
    assert "signature is wrong" in shown.stdout
