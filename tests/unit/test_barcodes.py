# SPDX-License-Identifier: Apache-2.0
"""Scanned lines: the barcode that each one contains, or the reason for its refusal."""

import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.barcodes import (
    MAX_LENGTH,
    BarcodeRefusedError,
    ScannerFormat,
    clean,
    read_line,
    unwrap_spreadsheet,
    verify_check_digit,
)

BARCODES = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=MAX_LENGTH)
ENDINGS = st.text(" \t\r\n\f\v\x00", max_size=4)


@given(before=ENDINGS, barcode=BARCODES, after=ENDINGS)
def test_whitespace_around_a_barcode_is_stripped(before, barcode, after):
    """Spaces, Enter, CR LF and Tab around a barcode are removed; all other characters are kept."""
    assert clean(before + barcode + after) == barcode


@given(barcode=BARCODES)
def test_clean_barcode_is_unchanged(barcode):
    """Cleaning a cleaned barcode returns the same barcode."""
    once = clean(f"  {barcode}\r\n")

    assert clean(once) == once


@given(prefix=st.text("~]ABC012", min_size=1, max_size=4), barcode=BARCODES)
def test_configured_prefix_is_removed_once(prefix, barcode):
    """The scanner's prefix is removed once: the barcode may begin with the same characters."""
    assert clean(f"{prefix}{barcode}\r", prefix) == barcode


def test_whitespace_after_the_prefix_is_stripped():
    """Some scanners send a space between their prefix and the barcode."""
    assert clean("]C1 310\r", "]C1") == "310"


@given(prefix=st.text("~]", min_size=1, max_size=4), barcode=BARCODES)
def test_barcode_without_the_prefix_is_accepted(prefix, barcode):
    """A typed barcode has no prefix, and is accepted unchanged."""
    assume(not barcode.startswith(prefix))

    assert clean(barcode, prefix) == barcode


@pytest.mark.parametrize("barcode", ["000123", "a/B$c%d", "Ab-cD", "12 34", "*A123*", "Ж-77", "X0X"])
def test_significant_characters_are_kept(barcode):
    """Leading zeros, `/`, `$`, `%`, inner spaces and the case of letters belong to the barcode."""
    assert clean(f"{barcode}\r\n") == barcode


@pytest.mark.parametrize("line", ["", "\r\n", " \t ", "\x00"])
def test_empty_line_is_refused_as_empty(line):
    """Enter alone is not a barcode."""
    with pytest.raises(BarcodeRefusedError) as refusal:
        clean(line)

    assert refusal.value.reason == "empty"


def test_prefix_alone_is_refused_as_empty():
    """A scanner that sent only its prefix has read no barcode."""
    with pytest.raises(BarcodeRefusedError) as refusal:
        clean("]C1 \r", "]C1")

    assert refusal.value.reason == "empty"


def test_64_characters_are_accepted():
    """The longest barcode has 64 characters after cleaning."""
    assert clean("9" * MAX_LENGTH + "\r\n") == "9" * MAX_LENGTH


def test_65_characters_are_refused_as_too_long():
    """The refusal contains the next step."""
    with pytest.raises(BarcodeRefusedError, match="Scan the barcode on the item") as refusal:
        clean("9" * (MAX_LENGTH + 1))

    assert refusal.value.reason == "too_long"


@pytest.mark.parametrize("control", ["\x1b", "\n", "\x00", "\u202e", "\u200b", "\ud800", "\u2028", "\u2029"])
def test_control_characters_inside_are_refused(control):
    """Escape sequences, line ends inside, and marks that reverse the writing direction are never part of a barcode."""
    with pytest.raises(BarcodeRefusedError, match="control characters") as refusal:
        clean(f"3100{control}0012345")

    assert refusal.value.reason == "control_characters"


@given(line=st.text(max_size=80) | st.builds("{}{}{}".format, ENDINGS, st.text(max_size=70), ENDINGS))
def test_any_line_is_a_printable_part_of_itself_or_refused(line):
    """A barcode that is accepted is not empty, not too long, has no control character, and was in the line."""
    try:
        barcode, reason = clean(line), None
    except BarcodeRefusedError as refusal:
        barcode, reason = None, refusal.reason

    if barcode is None:
        assert reason in {"empty", "too_long", "control_characters"}
    else:
        assert 1 <= len(barcode) <= MAX_LENGTH
        assert not {unicodedata.category(char) for char in barcode} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        assert barcode in line


SPACES = "\u00a0\u1680\u2003\u2009\u2028\u2029\u202f\u205f\u3000\x85\x1c\u200b\u2060\ufeff"


@pytest.mark.parametrize("space", SPACES)
def test_every_space_at_the_ends_is_stripped(space):
    """Unicode's white space, spaces without width and the byte order mark are not part of a barcode."""
    assert clean(f"{space} 310{space}\r\n") == "310"
    assert read_line(f"{space}#{space}310{space}*{space}", ScannerFormat(prefix="#", suffix="*")) == "310"
    assert unwrap_spreadsheet(f'{space}="{space}310{space}"{space}') == "310"


@pytest.mark.parametrize(
    ("cell", "barcode"),
    [
        ('="31000000000170"', "31000000000170"),
        ('="000123"', "000123"),
        ("'31000000000170", "31000000000170"),
        ("'0012'", "0012"),
        ("31000000000170.0", "31000000000170"),
        ("31000000000170,00", "31000000000170"),
        ('="310.0"', "310"),
        ("123456789012345.0", "123456789012345"),
        ("A.0", "A.0"),
        ("3E13", "3E13"),
        ("1.5", "1.5"),
        ("12-E+04", "12-E+04"),
        ("#A1", "#A1"),
        ("'s-Hertogenbosch", "'s-Hertogenbosch"),
    ],
)
def test_cell_of_a_spreadsheet_is_unwrapped(cell, barcode):
    """Quotes and decimals that a spreadsheet adds are removed; a text of another form is unchanged."""
    assert unwrap_spreadsheet(cell) == barcode
    assert read_line(f"{cell}\r", ScannerFormat()) == barcode


@pytest.mark.parametrize(
    "cell",
    ["3.00E+13", "3,00E+13", "3.1e+13", "3E+13", '="3.00E+13"', "'3E+13", "1234567890123456.0", "=31000", '="310', "########",
     "#N/A", "#VALUE!", "Err:502"],
)  # fmt: skip
def test_cell_without_its_digits_is_refused(cell):
    """A short form of a number, a formula and an error are never a barcode, in a file and at a station."""
    for read in (unwrap_spreadsheet, lambda line: read_line(line, ScannerFormat())):
        with pytest.raises(BarcodeRefusedError, match="spreadsheet") as refusal:
            read(cell)
        assert refusal.value.reason == "spreadsheet_damage"


@pytest.mark.parametrize(
    ("line", "scanner", "barcode"),
    [
        ("31000#\r\n", ScannerFormat(suffix="#"), "31000"),
        ("31000", ScannerFormat(suffix="#"), "31000"),
        ("~31000#", ScannerFormat("~", "#"), "31000"),
        ("]C131000", ScannerFormat(aim_prefix=True), "31000"),
        ("]E0978316148410", ScannerFormat(aim_prefix=True), "978316148410"),
        ("~]A031000", ScannerFormat("~", aim_prefix=True), "31000"),
        ("31000", ScannerFormat(aim_prefix=True), "31000"),
        ("A31000B", ScannerFormat(codabar_letters=True), "31000"),
        ("a31000d", ScannerFormat(codabar_letters=True), "31000"),
        ("T31000E", ScannerFormat(codabar_letters=True), "31000"),
        ("]F0A31000B", ScannerFormat(aim_prefix=True, codabar_letters=True), "31000"),
        ("AB12B", ScannerFormat(codabar_letters=True), "AB12B"),
        ("A31000", ScannerFormat(codabar_letters=True), "A31000"),
        ("*A-1*", ScannerFormat(code39_asterisks=True), "A-1"),
        ("*A-1", ScannerFormat(code39_asterisks=True), "*A-1"),
        ("A31000B", ScannerFormat(), "A31000B"),
        ("*A-1*", ScannerFormat(), "*A-1*"),
        ("]C131000", ScannerFormat(), "]C131000"),
    ],
)
def test_scanner_format_is_removed(line, scanner, barcode):
    """Each setting removes its characters where they are, and nothing else; by default the line is kept."""
    assert read_line(line, scanner) == barcode


CODES = st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-$:/", min_size=1, max_size=40)


@given(
    barcode=CODES,
    prefix=st.sampled_from(["", "~", "##"]),
    suffix=st.sampled_from(["", "~", "@@", "\t"]),
    aim=st.booleans(),
)
def test_scanned_barcode_is_the_printed_one(barcode, prefix, suffix, aim):
    """A scanner's line gives the barcode that is printed on the item, for every combination of settings."""
    scanner = ScannerFormat(prefix, suffix, aim_prefix=aim)

    assert read_line(f"{prefix}{']C0' if aim else ''}{barcode}{suffix}\r", scanner) == barcode


@given(
    body=st.text("0123456789-$:/.+", min_size=1, max_size=20),
    first=st.sampled_from("ABCD"),
    last=st.sampled_from("ABCD"),
)
def test_codabar_letters_are_removed(body, first, last):
    """The letters are removed from every Codabar barcode; a body that is a decimal number is a spreadsheet's."""
    try:
        expected = unwrap_spreadsheet(body)
    except BarcodeRefusedError:
        expected = None
    assume(expected)

    assert read_line(f"{first}{body}{last}", ScannerFormat(codabar_letters=True)) == expected


FORMATS = st.builds(
    ScannerFormat,
    st.sampled_from(["", "]C1", "A"]),
    st.sampled_from(["", "B", "*"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@given(line=st.text(max_size=80) | st.text("\"'=*ABE+.,0123456789]C #", max_size=12), scanner=FORMATS)
def test_any_line_is_a_clean_part_of_itself_or_refused(line, scanner):
    """Whatever the settings: a barcode that `clean` keeps and that was in the line, or a refusal with words."""
    try:
        barcode, words = read_line(line, scanner), ""
        verify_check_digit(barcode)
    except BarcodeRefusedError as refusal:
        barcode, words = "", str(refusal)

    assert ". " in words if words else clean(barcode) == barcode
    assert barcode in line


@pytest.mark.parametrize("barcode", ["00049927398716", "00079927398713"])
def test_known_numbers_have_the_right_check_digit(barcode):
    """Published numbers with a check digit of modulus 10, with zeros before them."""
    verify_check_digit(barcode)


def is_right(barcode):
    try:
        verify_check_digit(barcode)
    except BarcodeRefusedError as refusal:
        return refusal.reason != "wrong_check_digit"
    return True


@given(first=st.text("0123456789", min_size=13, max_size=13), position=st.integers(0, 13), offset=st.integers(1, 9))
def test_one_misread_digit_is_refused(first, position, offset):
    """Modulus 10 finds every single wrong digit, and one last digit of ten is right."""
    [right] = [first + digit for digit in "0123456789" if is_right(first + digit)]

    other = str((int(right[position]) + offset) % 10)

    assert not is_right(right[:position] + other + right[position + 1 :])


@pytest.mark.parametrize("barcode", ["310", "A1000000000017", "310000000001700", "BD:01a20a85", "\u0661" * 14])
def test_other_barcodes_have_no_check_digit(barcode):
    """Only barcodes of 14 digits are verified."""
    verify_check_digit(barcode)
