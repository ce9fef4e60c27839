# SPDX-License-Identifier: Apache-2.0
"""Conversion of a scanner's line into a barcode, or the reason why the line is not one."""

import unicodedata
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from schemas.reasons import ReplyReason

SLIP_PREFIX: Final = "BD:"
"""Prefix of a slip's code; the id of its print job follows."""

MAX_LENGTH: Final = 64
"""Longest accepted barcode, in characters after cleaning."""


@dataclass(frozen=True)
class BarcodeRefusedError(ValueError):
    """A line that is not a barcode. The text is for staff: the cause and the next step."""

    reason: ReplyReason
    """`empty`, `too_long` or `control_characters`."""

    def __str__(self) -> str:
        return _MESSAGES[self.reason]


_MESSAGES = {
    ReplyReason.EMPTY: "Nothing was scanned. Scan the item's barcode.",
    ReplyReason.TOO_LONG: f"That is longer than {MAX_LENGTH} characters and not an item barcode. Scan the barcode on the item.",
    ReplyReason.CONTROL_CHARACTERS: "That contains control characters and is not an item barcode. Scan the barcode on the item again.",
}


def parse_slip_code(code: str) -> UUID | None:
    """The id in a slip's code (`BD:` and the id of its print job); `None` for any other barcode."""
    if not code.upper().startswith(SLIP_PREFIX):
        return None
    try:
        return UUID(code[len(SLIP_PREFIX) :])
    except ValueError:
        return None


def clean(line: str, prefix: str = "") -> str:
    """Strip what a scanner adds (spaces, Enter, CR LF, Tab, its `prefix`); keep the rest as scanned.

    Leading zeros, `/`, `$`, `%` and the case of letters are kept. Raises `BarcodeRefusedError` when the rest is empty,
    longer than `MAX_LENGTH`, or contains control characters.
    """
    barcode = line.strip(" \t\r\n\f\v\x00")
    if prefix:
        barcode = barcode.removeprefix(prefix).lstrip()
    if not barcode:
        raise BarcodeRefusedError(ReplyReason.EMPTY)
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in barcode):
        raise BarcodeRefusedError(ReplyReason.CONTROL_CHARACTERS)
    if len(barcode) > MAX_LENGTH:
        raise BarcodeRefusedError(ReplyReason.TOO_LONG)
    return barcode
