# SPDX-License-Identifier: Apache-2.0
"""What a scanner sends, and the barcode that is made of it."""

import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.barcodes import MAX_LENGTH, BarcodeRefusedError, clean

BARCODES = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=MAX_LENGTH)
ENDINGS = st.text(" \t\r\n\f\v\x00", max_size=4)


@given(before=ENDINGS, barcode=BARCODES, after=ENDINGS)
def test_what_a_scanner_adds_is_stripped(before, barcode, after):
    """Spaces, Enter, CR LF and Tab around a barcode make no difference; all the rest is kept."""
    assert clean(before + barcode + after) == barcode


@given(barcode=BARCODES)
def test_cleaning_twice_changes_nothing_more(barcode):
    """A cleaned barcode is clean."""
    once = clean(f"  {barcode}\r\n")

    assert clean(once) == once


@given(prefix=st.text("~]ABC012", min_size=1, max_size=4), barcode=BARCODES)
def test_the_scanners_own_prefix_is_stripped_once(prefix, barcode):
    """A configured prefix goes, and goes once: the barcode may begin with the same characters."""
    assert clean(f"{prefix}{barcode}\r", prefix) == barcode


@given(prefix=st.text("~]", min_size=1, max_size=4), barcode=BARCODES)
def test_a_barcode_without_the_prefix_is_taken_too(prefix, barcode):
    """A typed barcode has no prefix, and is taken as it is."""
    assume(not barcode.startswith(prefix))

    assert clean(barcode, prefix) == barcode


@pytest.mark.parametrize("barcode", ["000123", "a/B$c%d", "Ab-cD", "12 34", "*A123*", "Ж-77"])
def test_meaningful_characters_are_kept(barcode):
    """Leading zeros, `/`, `$`, `%`, inner spaces and the case of letters belong to the barcode."""
    assert clean(f"{barcode}\r\n") == barcode


@pytest.mark.parametrize("line", ["", "\r\n", " \t ", "\x00"])
def test_an_empty_line_is_refused_as_empty(line):
    """Enter alone is no barcode."""
    with pytest.raises(BarcodeRefusedError) as refusal:
        clean(line)

    assert refusal.value.reason == "empty"


def test_a_prefix_alone_is_refused_as_empty():
    """A scanner that sent nothing but its prefix has read nothing."""
    with pytest.raises(BarcodeRefusedError) as refusal:
        clean("]C1 \r", "]C1")

    assert refusal.value.reason == "empty"


def test_the_longest_barcode_is_taken():
    """64 characters are a barcode."""
    assert clean("9" * MAX_LENGTH + "\r\n") == "9" * MAX_LENGTH


def test_a_longer_one_is_refused():
    """65 characters are none, and the words say what to do."""
    with pytest.raises(BarcodeRefusedError, match="Scan the barcode on the item") as refusal:
        clean("9" * (MAX_LENGTH + 1))

    assert refusal.value.reason == "too_long"


@pytest.mark.parametrize("control", ["\x1b", "\n", "\x00", "\u202e", "\u200b", "\ud800", "\u2028"])
def test_control_characters_inside_are_refused(control):
    """Escape sequences, line ends inside, marks that turn the writing round: no item barcode holds them."""
    with pytest.raises(BarcodeRefusedError, match="control characters") as refusal:
        clean(f"3100{control}0012345")

    assert refusal.value.reason == "control_characters"


@given(line=st.text(max_size=200))
def test_what_comes_out_is_safe_to_look_up(line):
    """Whatever line comes in, nothing unprintable, empty, too long or invented comes out."""
    barcode = cleaned_or_none(line)
    assume(barcode is not None)

    assert 1 <= len(barcode) <= MAX_LENGTH
    assert not {unicodedata.category(char) for char in barcode} & {"Cc", "Cf", "Cs"}
    assert barcode in line


def cleaned_or_none(line):
    """The barcode, or `None` when the line is refused."""
    try:
        return clean(line)
    except BarcodeRefusedError:
        return None
