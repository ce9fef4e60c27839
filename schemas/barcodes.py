# SPDX-License-Identifier: Apache-2.0
"""Conversion of a scanner's line into a barcode, or the reason why the line is not one."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from schemas.reasons import ReplyReason

MAX_LENGTH: Final = 64
"""Longest accepted barcode, in characters after cleaning."""

CHECKED_LENGTH: Final = 14
"""Number of digits of the barcodes with a check digit that libraries use."""

_ENDS: Final = (
    "\x00\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\u180e\u200b\u2060\ufeff"
)
"""Characters that are removed at both ends of a line: NUL, every white space of Unicode, spaces without width, and the
byte order mark."""


@dataclass(frozen=True)
class ScannerFormat:
    """Characters that a scanner adds to each barcode. By default it adds none."""

    prefix: str = ""
    suffix: str = ""
    aim_prefix: bool = False
    """The symbology identifier of ISO/IEC 15424 comes first, for example `]C1`."""
    codabar_letters: bool = False
    """The start and stop letters of Codabar (A to D, or the older notation T, N, `*`, E) enclose each barcode."""
    code39_asterisks: bool = False
    """The start and stop characters of Code 39 enclose each barcode."""


@dataclass(eq=False)
class BarcodeRefusedError(ValueError):
    """A line that is not a barcode. The text is for staff: the cause and the next step."""

    reason: ReplyReason
    """`empty`, `too_long`, `control_characters`, `spreadsheet_damage` or `wrong_check_digit`."""

    def __str__(self) -> str:
        return _MESSAGES[self.reason]


_MESSAGES = {
    ReplyReason.EMPTY: "Nothing was scanned. Scan the item's barcode.",
    ReplyReason.TOO_LONG: f"That is longer than {MAX_LENGTH} characters and not an item barcode. Scan the barcode on the item.",
    ReplyReason.CONTROL_CHARACTERS: "That contains control characters and is not an item barcode. Scan the barcode on the item again.",
    ReplyReason.SPREADSHEET_DAMAGE: "That is a number or formula of a spreadsheet, and digits of the barcode may be lost. Scan the barcode on the item; in a file, format the column as text and export it again.",
    ReplyReason.WRONG_CHECK_DIGIT: "The check digit is wrong, so at least one digit was misread. Scan the barcode on the item again.",
}

_AIM_PREFIX: Final = re.compile(r"\][A-Za-z][0-9A-Za-z]")
_CODABAR: Final = re.compile(r"[A-DTNE*]([0-9$:/.+-]+)[A-DTNE*]", re.IGNORECASE)
_CODE39: Final = re.compile(r"\*(.+)\*", re.DOTALL)

_FORMULA_TEXT: Final = re.compile(r'="([^"]*)"')
_TEXT_MARK: Final = re.compile(r"'([0-9A-Za-z.,+]+)'?")
_DECIMAL: Final = re.compile(r"([0-9]{1,15})[.,]0+")
_LOST_DIGITS: Final = re.compile(
    r"[0-9]([.,][0-9]+)?E\+[0-9]{2,3}|[0-9]{16,}[.,]0+|=[0-9].*|=\".*|#{3,}"
    r"|#(N/A|REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!)|Err:[0-9]{3}",
    re.IGNORECASE | re.DOTALL,
)
"""A short form of a number, a number above the 15 digits that a spreadsheet keeps, a formula, and its error values."""


def clean(line: str, prefix: str = "") -> str:
    """Strip what a scanner adds (white space, Enter, CR LF, Tab, its `prefix`); keep the rest as scanned.

    Leading zeros, `/`, `$`, `%` and the case of letters are kept. Raises `BarcodeRefusedError` when the rest is empty,
    longer than `MAX_LENGTH`, or contains control characters.
    """
    barcode = line.strip(_ENDS)
    if prefix:
        barcode = barcode.removeprefix(prefix).lstrip(_ENDS)
    if not barcode:
        raise BarcodeRefusedError(ReplyReason.EMPTY)
    if not barcode.isprintable() and any(
        unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in barcode
    ):
        raise BarcodeRefusedError(ReplyReason.CONTROL_CHARACTERS)
    if len(barcode) > MAX_LENGTH:
        raise BarcodeRefusedError(ReplyReason.TOO_LONG)
    return barcode


def read_line(line: str, scanner: ScannerFormat) -> str:
    """The barcode in a scanned or pasted line, without what the scanner or a spreadsheet added.

    The scanner sends its prefix, the symbology identifier, the barcode and its suffix. Each is optional in a line, because
    a typed barcode has none of them. Raises `BarcodeRefusedError` as `clean` and `unwrap_spreadsheet` do.
    """
    text = line.strip(_ENDS)
    if scanner.suffix:
        text = text.removesuffix(scanner.suffix).rstrip(_ENDS)
    if scanner.prefix:
        text = text.removeprefix(scanner.prefix).lstrip(_ENDS)
    if scanner.aim_prefix and (found := _AIM_PREFIX.match(text)):
        text = text[found.end() :].lstrip(_ENDS)
    if scanner.codabar_letters and (found := _CODABAR.fullmatch(text)):
        text = found[1]
    if scanner.code39_asterisks and (found := _CODE39.fullmatch(text)):
        text = found[1]
    return clean(unwrap_spreadsheet(text))


def unwrap_spreadsheet(text: str) -> str:
    """The text of a spreadsheet's cell: `="310"`, `'310` and `310.0` become `310`; any other text is unchanged.

    Raises `BarcodeRefusedError` for a text whose digits may be lost, for example `3.00E+13`.
    """
    cell = text.strip(_ENDS)
    for pattern in (_FORMULA_TEXT, _TEXT_MARK, _DECIMAL):
        if found := pattern.fullmatch(cell):
            cell = found[1].strip(_ENDS)
    if _LOST_DIGITS.fullmatch(cell):
        raise BarcodeRefusedError(ReplyReason.SPREADSHEET_DAMAGE)
    return cell


def verify_check_digit(barcode: str) -> None:
    """Verify a barcode of 14 digits by its last digit (modulus 10, ISO/IEC 7812-1 annex B).

    Barcodes of another form are not verified. Raises `BarcodeRefusedError` when the check digit is wrong.
    """
    if len(barcode) != CHECKED_LENGTH or not (barcode.isascii() and barcode.isdigit()):
        return
    doubled = [int(digit) * (2 - position % 2) for position, digit in enumerate(barcode)]
    if sum(number // 10 + number % 10 for number in doubled) % 10:
        raise BarcodeRefusedError(ReplyReason.WRONG_CHECK_DIGIT)
