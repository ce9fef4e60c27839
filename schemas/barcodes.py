# SPDX-License-Identifier: Apache-2.0
"""What a scanner sends, made into the barcode that is looked up; or the reason why it is none."""

import unicodedata
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from schemas.reasons import ReplyReason

SLIP_PREFIX: Final = "BD:"
"""What a slip's own code begins with; its id follows."""

MAX_LENGTH = 64
"""Longest barcode that is taken, in characters after cleaning."""


@dataclass(frozen=True)
class BarcodeRefusedError(ValueError):
    """The line is no barcode."""

    reason: ReplyReason
    """`empty`, `too_long` or `control_characters`."""

    def __str__(self) -> str:
        return _WORDS[self.reason]


_WORDS = {
    ReplyReason.EMPTY: "Nothing was scanned. Scan the item's barcode.",
    ReplyReason.TOO_LONG: f"That is longer than {MAX_LENGTH} characters and no item barcode. Scan the barcode on the item.",
    ReplyReason.CONTROL_CHARACTERS: "That holds control characters and is no item barcode. Scan the barcode on the item again.",
}


def slip_of(code: str) -> UUID | None:
    """The slip whose own code was scanned (`BD:` and its id); `None` for any other barcode."""
    if not code.upper().startswith(SLIP_PREFIX):
        return None
    try:
        return UUID(code[len(SLIP_PREFIX) :])
    except ValueError:
        return None


def clean(line: str, prefix: str = "") -> str:
    """Strip what a scanner adds (spaces, Enter, CR LF, Tab, its `prefix`) and keep all the rest as scanned.

    Leading zeros, `/`, `$`, `%` and the case of letters are kept.
    Raises `BarcodeRefusedError` when nothing is left, it is too long, or control characters stand inside.
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
