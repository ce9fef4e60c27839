# SPDX-License-Identifier: Apache-2.0
"""The prompt's decisions about a scanned line, with a client whose threads do not run: the journal shows what it sent."""

import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from schemas import signing
from schemas.slip_codes import last_digits, short_code, slip_code
from stations import prompt
from stations.client import StationClient
from stations.journal.file import JournalLimits
from stations.prompt import ScanPrompt
from stations.settings import StationSettings
from stations.terminal import Screen

KEY = "a key of the tests"
SLIP = UUID("01a20a85-0c89-7e6f-9d55-be5c2b392977")
CARD = "2000001"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[StationClient]:
    settings = StationSettings(
        code="main-desk-1",
        key=SecretStr(KEY),
        broker_url=SecretStr(f"redis+socket://{tmp_path}/away.sock"),
        journal=tmp_path / "station.journal",
        patron_card_pattern=r"2\d{6}",
        scanner_prefix="#",
    )
    opened = StationClient(settings)
    yield opened
    opened.journal.close()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The prompt's clock, in seconds. It stands still, so that a busy machine does not end a window of time."""
    seconds = [0.0]
    monkeypatch.setattr(prompt, "time", SimpleNamespace(monotonic=lambda: seconds[0], sleep=time.sleep))
    return seconds


def sent(client: StationClient, *lines: str) -> tuple[list[dict[str, Any]], str]:
    """The events that the lines became, and the screen."""
    output = io.StringIO()
    screen = Screen(output, interactive=False, sounds=False)
    ScanPrompt(screen, lambda: datetime.now(UTC), shows_pending=False).serve(client, lines)
    return [json.loads(entry.payload) for entry in client.journal.recent()], output.getvalue()


def test_scan_is_stored_signed_with_the_journals_number(client: StationClient) -> None:
    """Each event has the next sequence number under its signature, and the barcode without what the scanner adds."""
    events, _ = sent(client, "#00A1\r\n", " A2")

    assert [(event["sequence"], event["barcode"]) for event in events] == [(1, "00A1"), (2, "A2")]
    assert all(signing.verify(event, KEY.encode()) for event in events)


def test_wrong_check_digit_is_shown_and_not_sent(client: StationClient) -> None:
    """With the check digit option a misread barcode is refused at the station; the journal stores nothing."""
    client.settings = client.settings.model_copy(update={"check_digit": "mod10"})

    events, screen = sent(client, "#31000000000170\r\n", "31000000000177", "310")

    assert [event["barcode"] for event in events] == ["31000000000177", "310"]
    assert "The check digit is wrong" in screen


def test_barcode_pasted_from_a_spreadsheet_is_unwrapped_or_refused(client: StationClient) -> None:
    """Quotes are removed; a number in its short form is refused, and the journal stores nothing."""
    events, screen = sent(client, '="00A1"', "\ufeff\u00a0A2\u2003", "3.00E+13")

    assert [event["barcode"] for event in events] == ["00A1", "A2"]
    assert "spreadsheet" in screen


def test_patron_card_in_another_form_is_still_a_card(client: StationClient) -> None:
    """What a scanner or a spreadsheet adds to a card does not hide it."""
    client.settings = client.settings.model_copy(update={"scanner_aim_prefix": True, "scanner_codabar_letters": True})

    events, screen = sent(client, f"]F0A{CARD}B", f'="{CARD}"', f"{CARD}.0", f"#\ufeff{CARD}")

    assert events == []
    assert CARD not in screen


def test_same_barcode_within_two_seconds_is_one_scan(client: StationClient) -> None:
    """A double trigger is shown and not sent, whatever the scanner adds to the second line."""
    events, screen = sent(client, "A1", "#A1 ", "A2", "A1")

    assert [event["barcode"] for event in events] == ["A1", "A2", "A1"]
    assert screen.count("SAME SCAN  A1") == 1


@pytest.mark.parametrize(("pause", "scans"), [(1.999, 1), (2.0, 2)])
def test_same_barcode_after_two_seconds_is_a_second_scan(
    client: StationClient, clock: list[float], pause: float, scans: int
) -> None:
    """The window of a double trigger ends after two seconds."""
    output = io.StringIO()
    served = ScanPrompt(Screen(output, interactive=False, sounds=False), lambda: datetime.now(UTC), shows_pending=False)

    served.serve(client, ["A1"])
    clock[0] += pause
    served.serve(client, ["A1"])

    assert len(client.journal.recent()) == scans


@pytest.mark.parametrize(("pause", "kind"), [(60.0, "bookdrop.slip-seen.v1"), (60.001, "bookdrop.barcode-scanned.v1")])
def test_barcode_a_minute_after_a_slips_code_is_a_scan(
    client: StationClient, clock: list[float], pause: float, kind: str
) -> None:
    """The packing check ends after 60 seconds."""
    output = io.StringIO()
    served = ScanPrompt(Screen(output, interactive=False, sounds=False), lambda: datetime.now(UTC), shows_pending=False)

    served.serve(client, [f"BD:{SLIP}"])
    clock[0] += pause
    served.serve(client, ["A1"])

    [entry] = client.journal.recent()
    assert json.loads(entry.payload)["type"] == kind


def test_slips_code_then_item_is_one_packing_event(client: StationClient) -> None:
    """The barcode after a slip's code is checked against the slip; the one after it is a scan."""
    events, _ = sent(client, f"BD:{SLIP}", "A1", "A1")

    assert [event["type"] for event in events] == ["bookdrop.slip-seen.v1", "bookdrop.barcode-scanned.v1"]
    assert (events[0]["slip"], events[0]["barcode"]) == (str(SLIP), "A1")


@pytest.mark.parametrize("code", [slip_code(SLIP), slip_code(SLIP).lower(), short_code(SLIP), f"BD:{SLIP.hex[-12:]}"])
def test_code_of_a_slip_is_accepted_in_each_form(client: StationClient, code: str) -> None:
    """The code in letters, its printed short form, and the digits of an earlier release begin the packing check."""
    events, _ = sent(client, code, "A1")

    [event] = events
    assert event["type"] == "bookdrop.slip-seen.v1"
    assert last_digits(UUID(event["slip"])) in {SLIP.hex, SLIP.hex[-12:]}


def test_patron_card_between_slip_and_item_changes_nothing(client: StationClient) -> None:
    """A card is neither stored nor shown, and the next barcode is still the slip's item."""
    events, screen = sent(client, f"BD:{SLIP}", CARD, "A1")

    assert [(event["type"], event["barcode"]) for event in events] == [("bookdrop.slip-seen.v1", "A1")]
    assert "That is a patron card" in screen
    assert CARD not in screen
    assert CARD.encode() not in b"".join(path.read_bytes() for path in client.settings.journal_file.parent.iterdir())


def test_cancel_after_a_slips_code_makes_the_next_barcode_a_scan(client: StationClient) -> None:
    """`:cancel` ends the packing check."""
    events, _ = sent(client, f"BD:{SLIP}", ":cancel", "A1")

    assert [event["type"] for event in events] == ["bookdrop.barcode-scanned.v1"]


def test_rejected_scan_can_be_scanned_again_at_once(client: StationClient) -> None:
    """A scan that the full journal rejects counts as not stored, and is no double trigger."""
    client.journal.limits = JournalLimits(max_unanswered=0)
    output = io.StringIO()
    served = ScanPrompt(Screen(output, interactive=False, sounds=False), lambda: datetime.now(UTC), shows_pending=False)

    served.serve(client, ["A1", "A1"])

    assert served.not_stored == 2
    assert output.getvalue().count("NOT TAKEN") == 2
    assert client.journal.recent() == []
