# SPDX-License-Identifier: Apache-2.0
"""Scanned lines: the barcode that each one contains, or the reason for its refusal."""

import unicodedata
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.barcodes import MAX_LENGTH, BarcodeRefusedError, clean, parse_slip_code

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


@pytest.mark.parametrize("barcode", ["000123", "a/B$c%d", "Ab-cD", "12 34", "*A123*", "Ж-77"])
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


@pytest.mark.parametrize("prefix", ["BD:", "bd:"])
def test_code_of_a_slip_gives_its_id(prefix):
    """The prefix is read in capitals and small letters."""
    assert parse_slip_code(f"{prefix}01a20a85-0c89-7e6f-9d55-be5c2b392977") == UUID(
        "01a20a85-0c89-7e6f-9d55-be5c2b392977"
    )


@pytest.mark.parametrize("code", ["31000000170", "BD:", "BD:17", "01a20a85-0c89-7e6f-9d55-be5c2b392977", ""])
def test_other_code_is_not_a_slip(code):
    """A code without the prefix, or with something else than an id after it, is a barcode."""
    assert parse_slip_code(code) is None
