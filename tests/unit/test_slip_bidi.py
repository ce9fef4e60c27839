# SPDX-License-Identifier: Apache-2.0
"""Hebrew and Arabic on a slip: letters in their forms, in the order in which they are seen."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.slips.bidi import in_order_of_sight, shaped
from tasks.slips.pdf import MISSING, _glyphs, printable, unprintable
from tests.slips import content


@pytest.mark.parametrize(
    ("read", "seen"),
    [
        ("plain (text)", "plain (text)"),
        ("שלום", "םולש"),
        ("שיר 123 (שני)", "(ינש) 123 ריש"),
        ("Songs: שיר השירים (2nd ed.)", "Songs: םירישה ריש (2nd ed.)"),
        ("שיר השירים…", "…םירישה ריש"),
        ("סופר [abc (דה)] x", "x [(הד) abc] רפוס"),
        ("Vol. (שני) 2", "Vol. (ינש) 2"),
        ("שיר (abc) ב", "ב (abc) ריש"),
        ("A ( שיר", "A ( ריש"),
    ],
)
def test_letters_stand_in_the_order_they_are_seen(read, seen):
    """From left to right as on paper: words of Hebrew turned around, numbers and Latin not, brackets mirrored."""
    assert in_order_of_sight(read) == seen


@pytest.mark.parametrize(
    ("read", "forms"),
    [
        ("بيت", "\ufe91\ufef4\ufe96"),  # beh at the beginning, yeh in the middle, teh at the end
        ("دار", "\ufea9\ufe8d\ufead"),  # letters that join nothing after them
        ("سلام", "\ufeb3\ufefc\ufee1"),  # lam and alef are one
        ("پژ", "\ufb58\ufb8b"),  # Persian
        ("می‌دان", "\ufee3\ufbfd\u200c\ufea9\ufe8d\ufee5"),  # a joiner that joins not
        ("كِتَاب", "\ufedb\ufe98\ufe8e\ufe8f"),  # vowel signs are left out
    ],
)
def test_arabic_letters_take_their_forms(read, forms):
    """A letter looks as its neighbours make it look."""
    assert shaped(read) == forms


@pytest.mark.parametrize("title", ["שיר השירים", "מִלָּה", "ألف ليلة وليلة", "بوف کور", "آگ کا دریا", "תורה / Torah"])
def test_hebrew_and_arabic_are_printed(title):
    """Titles in Hebrew, Arabic, Persian and Urdu are printed, and staff are not bothered."""
    assert MISSING not in printable(title)
    assert unprintable(content(title=title)) == ()


@given(st.text())
@example("ﷺ ﷲ ۝ ؀ ܀ ࠀ ރ")
def test_only_letters_that_the_fonts_have_are_set(words):
    """Whatever is written: every letter that is set has a shape in both fonts, in either order."""
    shown = printable(words)

    assert {ord(char) for char in in_order_of_sight(shown)} <= _glyphs()
    assert len(in_order_of_sight(shown)) == len(shown)
