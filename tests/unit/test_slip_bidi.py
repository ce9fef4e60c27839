# SPDX-License-Identifier: Apache-2.0
"""Hebrew and Arabic on a slip: letters in their joined forms, in visual order."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.slips.bidi import shape, visual_order
from tasks.slips.typeface import MISSING, _glyphs, printable, unprintable
from tests.slips import content


@pytest.mark.parametrize(
    ("logical", "visual"),
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
def test_text_is_in_visual_order(logical, visual):
    """From left to right as on paper: Hebrew words are reversed, numbers and Latin are not, brackets are mirrored."""
    assert visual_order(logical) == visual


@pytest.mark.parametrize(
    ("letters", "forms"),
    [
        ("بيت", "\ufe91\ufef4\ufe96"),  # beh at the beginning, yeh in the middle, teh at the end
        ("دار", "\ufea9\ufe8d\ufead"),  # letters that join nothing after them
        ("سلام", "\ufeb3\ufefc\ufee1"),  # lam and alef are one
        ("پژ", "\ufb58\ufb8b"),  # Persian
        ("می‌دان", "\ufee3\ufbfd\u200c\ufea9\ufe8d\ufee5"),  # a joiner that joins not
        ("كِتَاب", "\ufedb\ufe98\ufe8e\ufe8f"),  # vowel signs are left out
    ],
)
def test_arabic_letters_have_their_joined_forms(letters, forms):
    """The neighbours of a letter decide its form."""
    assert shape(letters) == forms


@pytest.mark.parametrize("title", ["שיר השירים", "מִלָּה", "ألف ليلة وليلة", "بوف کور", "آگ کا دریا", "תורה / Torah"])
def test_hebrew_and_arabic_are_printed_without_a_warning(title):
    """Titles in Hebrew, Arabic, Persian and Urdu have no missing character."""
    assert MISSING not in printable(title)
    assert unprintable(content(title=title)) == ()


@given(st.text())
@example("ﷺ ﷲ ۝ ؀ ܀ ࠀ ރ")
def test_any_printed_character_is_in_both_fonts(words):
    """Every character of a printable text has a glyph in both fonts, in either order."""
    shown = printable(words)

    assert {ord(char) for char in visual_order(shown)} <= _glyphs()
    assert len(visual_order(shown)) == len(shown)
