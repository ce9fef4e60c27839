# SPDX-License-Identifier: Apache-2.0
"""The station in the documentation: its code runs against a real worker."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from uuid6 import uuid7

from tests.library import KEY, LENDER

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "write-a-station-in-another-language.md"
GOLDEN = Path(__file__).parent / "golden" / "v1"


@pytest.fixture
def documented():
    """The functions of the page's program, without any of this project's names."""
    [program] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(program, PAGE.name, "exec"), names)
    return SimpleNamespace(**names)


@pytest.fixture
def _running(deployment):
    """A real worker of role `returns`."""
    with deployment.worker("returns"):
        yield


def test_worked_example_equals_the_golden_signature(documented):
    """The page's event, canonical text, key and signature are those of the golden messages."""
    text = PAGE.read_text(encoding="utf-8")
    golden = json.loads((GOLDEN / "signature.json").read_text(encoding="utf-8"))
    example = json.loads(re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0])

    signed = documented.signed(example, golden["key"])

    assert signed["signature"] == golden["signature"]
    assert documented.canonical(example).decode() == golden["canonical"]
    assert all(f"\n{golden[part]}\n" in text for part in ("canonical", "signature"))
    assert f"`{golden['key']}`" in text


@pytest.mark.parametrize("name", ["return-reply", "action-reply", "slip-notice"])
def test_documented_check_accepts_the_golden_messages(documented, name):
    """The page's program accepts the golden messages with either key, and no changed one; the page shows the notice."""
    text = PAGE.read_text(encoding="utf-8")
    golden = json.loads((GOLDEN / "reply-signature.json").read_text(encoding="utf-8"))
    message, station = json.loads(golden["signed"][name]), golden["station"]
    notice = json.loads(golden["signed"]["slip-notice"])

    accepted = [documented.is_signed_for(station, message, golden[key]) for key in ("key", "second_key")]
    refused = [
        documented.is_signed_for(station, {**message, "event_id": "another"}, golden["key"]),
        documented.is_signed_for("main-desk-2", message, golden["key"]),
        documented.is_signed_for(station, message, "another key"),
    ]

    assert (accepted, refused) == ([True, True], [False, False, False])
    assert f"\n{golden['canonical']['slip-notice']}\n{notice['signature']}\n" in text


@pytest.mark.usefixtures("_running")
def test_documented_station_gets_its_reply(documented, library, valkey):
    """The page's program sends a scan and reads the reply; a repeated event gets the same reply."""
    _, [barcode] = library.request()
    event = {
        "type": "bookdrop.barcode-scanned.v1",
        "event_id": str(uuid7()),
        "station": "main-desk-1",
        "barcode": barcode,
        "scanned_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "print_slip": True,
        "sequence": 1,
    }

    first = documented.scan(valkey, event, KEY)
    again = documented.scan(valkey, event, KEY)

    assert first is not None
    assert first["message"] == f"The item's destination is {LENDER}"
    assert again == first
