# SPDX-License-Identifier: Apache-2.0
"""The code of a slip: the id of its print job in letters that every common keyboard layout has at one place. Pure.

A scanner types the keys of one layout, often the American one, and the computer reads them in its own. QWERTY, QWERTZ and
AZERTY differ in A, Q, W, Z, Y and M and in every punctuation mark, and AZERTY needs Shift for digits. So a code consists of
letters outside this set, and it has no I, L, O or U, which resemble others. Caps Lock changes nothing.

The short form has the last 12 of the 32 digits. Slips of earlier releases have `BD:` and the id in hexadecimal digits.
"""

import re
from collections.abc import Collection
from typing import Final
from uuid import UUID

PREFIX: Final = "BD"
"""Begins every code, so that no item barcode is taken for a slip."""
LETTERS: Final = "BCDEFGHJKNPRSTVX"
"""The letters of the hexadecimal digits 0 to F."""
DIGITS: Final = 32
"""Digits of an id."""
SHORT_DIGITS: Final = 12
"""Digits of the printed short form: the last of the id, all of them random."""
FEWEST_DIGITS: Final = 6
"""An operator may type as few of the last digits as this."""

_TO_LETTERS: Final = str.maketrans("0123456789abcdef", LETTERS)
_TO_DIGITS: Final = str.maketrans(LETTERS, "0123456789abcdef")
_IN_LETTERS: Final = re.compile(f"[{LETTERS}]+")
_IN_DIGITS: Final = re.compile(r"[0-9A-F]+")
_SPACING: Final = re.compile(r"[ -]")
_SHORT_BITS: Final = 4 * SHORT_DIGITS


def slip_code(job_id: UUID) -> str:
    """The content of the QR code of a slip: `BD` and 32 letters."""
    return PREFIX + job_id.hex.translate(_TO_LETTERS)


def short_code(job_id: UUID) -> str:
    """The short form as printed, in groups: `BD KXDB HTPR NNCC`."""
    letters = job_id.hex[-SHORT_DIGITS:].translate(_TO_LETTERS)
    return " ".join((PREFIX, *(letters[at : at + 4] for at in range(0, SHORT_DIGITS, 4))))


def parse_slip_code(code: str) -> UUID | None:
    """The id in a scanned code; `None` for any other barcode.

    A short form gives an id of which `is_short` is true: the digits that it lacks are zero.
    """
    if not code.isascii():  # in capitals, a letter such as ß would be two of the code
        return None
    text = _SPACING.sub("", code).upper()
    if text.startswith(f"{PREFIX}:"):
        digits = text.removeprefix(f"{PREFIX}:").lower()
        is_code = _IN_DIGITS.fullmatch(digits.upper()) is not None
    else:
        letters = text.removeprefix(PREFIX)
        is_code = text.startswith(PREFIX) and _IN_LETTERS.fullmatch(letters) is not None
        digits = letters.translate(_TO_DIGITS)
    return UUID(digits.zfill(DIGITS)) if is_code and len(digits) in {SHORT_DIGITS, DIGITS} else None


def parse_typed_code(text: str) -> UUID | None:
    """The id in the code or short form of a slip where nothing else is expected: the prefix may be missing.

    `None` for any other text, and for one that is a short form in letters as well as in hexadecimal digits.
    """
    found = parse_slip_code(text)
    if found is not None:
        return found
    meanings = [digits for digits in parse_typed(text) if len(digits) in {SHORT_DIGITS, DIGITS}]
    return UUID(meanings[0].zfill(DIGITS)) if len(meanings) == 1 else None


def is_short(slip: UUID) -> bool:
    """True for an id made from a short form. No print job has such an id: those of UUIDv7 contain a time and a version."""
    return slip.int >> _SHORT_BITS == 0


def last_digits(slip: UUID) -> str:
    """The hexadecimal digits that are known of a slip's id: all 32, or those of a short form."""
    return slip.hex[-SHORT_DIGITS:] if is_short(slip) else slip.hex


def parse_typed(text: str) -> Collection[str]:
    """Parse the id of a slip that an operator typed; return each possible end of that id, 6 to 32 hexadecimal digits.

    Accepts the code, the id, and the last digits or letters of each, with or without the prefix, spaces and hyphens. A
    text can have several results, because B to F are letters of a code and hexadecimal digits, or none.
    """
    typed = _SPACING.sub("", text.strip()).upper() if text.isascii() else ""
    meanings: set[str] = set()
    for rest in {typed, typed.removeprefix(PREFIX), typed.removeprefix(f"{PREFIX}:")}:
        if _IN_LETTERS.fullmatch(rest):
            meanings.add(rest.translate(_TO_DIGITS))
        if _IN_DIGITS.fullmatch(rest):
            meanings.add(rest.lower())
    return {digits for digits in meanings if FEWEST_DIGITS <= len(digits) <= DIGITS}
