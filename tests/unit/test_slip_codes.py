# SPDX-License-Identifier: Apache-2.0
"""The code of a slip: printed, scanned in another keyboard layout, and typed in its short form."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.barcodes import ScannerFormat, read_line
from schemas.slip_codes import (
    is_short,
    last_digits,
    parse_slip_code,
    parse_typed,
    parse_typed_code,
    short_code,
    slip_code,
)

SLIP = UUID("01a20a85-0c89-7e6f-9d55-be5c2b392977")
CODE = "BDBCPDBPKGBSKNJVHXNTGGRVGSDRENDNJJ"

QWERTY = "`1234567890-=qwertyuiop[]asdfghjkl;'zxcvbnm,./"
LAYOUTS = {
    "German": "^1234567890ß´qwertzuiopü+asdfghjklöäyxcvbnm,.-",
    "French": "²&é\"'(-è_çà)=azertyuiop^$qsdfghjklmùwxcvbn,;:!",
    "Belgian": "²&é\"'(§è!çà)-azertyuiop^$qsdfghjklmùwxcvbn,;:=",
    "Czech": ";+ěščřžýáíé=´qwertzuiopú)asdfghjklů§yxcvbnm,.-",
    "Italian": "\\1234567890'ìqwertyuiopè+asdfghjklòàzxcvbnm,.-",
    "Spanish": "º1234567890'¡qwertyuiop`+asdfghjklñ´zxcvbnm,.-",
    "Swedish": "§1234567890+´qwertyuiopå¨asdfghjklöäzxcvbnm,.-",
    "Turkish": '"1234567890*-qwertyuıopğüasdfghjklşizxcvbnmöç.',
}
"""The characters of the keys of `QWERTY` without Shift, by layout."""


def typed(text, layout):
    """The line that a computer reads when a scanner sends the keys of `text` in the American layout."""
    return text.lower().translate(str.maketrans(QWERTY, LAYOUTS[layout]))


@pytest.mark.parametrize("layout", LAYOUTS)
@given(slip=st.uuids())
def test_code_is_read_in_any_keyboard_layout(layout, slip):
    """A scanner set to the American layout gives the same code on every computer, with and without Caps Lock."""
    line = typed(slip_code(slip), layout)

    assert parse_slip_code(line) == slip
    assert parse_slip_code(line.swapcase()) == slip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_code_of_earlier_releases_was_not_read_in_every_layout(layout):
    """The colon and the hyphens differ everywhere: the reason for the letters."""
    assert parse_slip_code(typed(f"BD:{SLIP}", layout)) is None


def test_code_and_short_form_of_an_id_do_not_change():
    """The codes on printed slips stay valid: these are fixed."""
    assert slip_code(SLIP) == CODE
    assert short_code(SLIP) == "BD RVGS DREN DNJJ"


@given(st.uuids())
def test_short_form_gives_the_last_digits(slip):
    """The printed short form, with or without its spaces, gives the last twelve digits of the id."""
    short = short_code(slip)

    for text in (short, short.replace(" ", ""), short.lower().replace(" ", "-")):
        found = parse_slip_code(text)
        assert found is not None
        assert is_short(found)
        assert last_digits(found) == slip.hex[-12:]
    assert slip.hex[-12:] in parse_typed(short)
    assert slip.hex[-12:] in parse_typed(short.removeprefix("BD "))
    assert slip.hex in parse_typed(slip_code(slip))


@given(st.uuids())
def test_slip_of_an_earlier_release_keeps_its_code_and_short_form(slip):
    """Printed slips with `BD:`, and the twelve digits printed on them, are accepted."""
    assert parse_slip_code(f"BD:{slip}") == slip
    assert parse_slip_code(f"bd:{slip}") == slip
    assert parse_typed_code(str(slip)) in {slip, None}
    assert slip.hex[-12:] in parse_typed(slip.hex[-12:])


@pytest.mark.parametrize(
    "code",
    [
        "31000000170",
        "BD:",
        "BD:17",
        "BD",
        "BD17",
        "BD00012345",
        "BDBCDF",
        f"{SLIP}",
        "",
        "ABCDBCDBCDBCDB",
        "BD" + "ß" * 6,
        "BD:" + "0" * 33,
    ],
)
def test_other_code_is_not_a_slip(code):
    """A code without the prefix, or with another number of digits, is a barcode."""
    assert parse_slip_code(code) is None


@pytest.mark.parametrize(
    "text", ["", "BD", "17", "12345", "not a slip", "0" * 33, "BD:" + "z" * 12, "%", "____________", "BD" + "ß" * 6]
)
def test_other_text_means_no_slip(text):
    """Too few or too many digits, and any other character, mean nothing; none reaches a query."""
    assert parse_typed(text) == set()
    assert parse_typed_code(text) is None


@given(st.text())
def test_any_text_means_hexadecimal_digits_or_nothing(text):
    """For any text the meanings are 6 to 32 lower-case hexadecimal digits."""
    assert all(6 <= len(digits) <= 32 and set(digits) <= set("0123456789abcdef") for digits in parse_typed(text))


def test_short_form_in_letters_and_digits_is_refused_without_its_prefix():
    """B to F are letters of a code and hexadecimal digits: with both meanings a station does not choose."""
    assert parse_typed_code("BCDFBCDFBCDE") is None
    assert parse_typed_code("BD BCDF BCDF BCDE") == UUID(int=0x012401240123)
    assert parse_typed("BCDFBCDFBCDE") == {"012401240123", "bcdfbcdfbcde"}


@given(st.uuids())
def test_code_passes_a_stations_scanner_settings(slip):
    """No setting of a scanner changes a slip's code or its short form."""
    scanner = ScannerFormat(aim_prefix=True, codabar_letters=True, code39_asterisks=True)

    assert read_line(slip_code(slip), scanner) == slip_code(slip)
    assert read_line(short_code(slip), scanner) == short_code(slip)
