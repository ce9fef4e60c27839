# SPDX-License-Identifier: Apache-2.0
"""Words into a width: nothing is wider than it may be, and nothing is lost without an ellipsis."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.slips.text_fitting import ELLIPSIS, fit, parts_of_code, wrap


def measure(words, size, bold):
    """Every letter is half as wide as it is high, and a point is a millimetre."""
    return len(words) * size / 2


@given(st.text(), st.floats(4, 40), st.integers(1, 5))
def test_no_row_is_too_wide(words, size, lines):
    """However long the words: at most so many rows, none wider than the width."""
    rows = wrap(words, 100, size, lines, bold=False, measure=measure)

    assert len(rows) <= lines
    assert all(measure(row, size, bold=False) <= 100 for row in rows)


@given(st.text(st.characters(exclude_characters=ELLIPSIS)), st.integers(1, 5))
def test_what_was_cut_ends_in_an_ellipsis(words, lines):
    """Either every letter is there, or the last row ends in an ellipsis."""
    rows = wrap(words, 40, 10, lines, bold=False, measure=measure)

    cut = "".join(rows).replace(" ", "") != "".join(words.split())
    assert cut == bool(rows and rows[-1].endswith(ELLIPSIS))


def test_words_stay_whole_where_they_can():
    """Rows break between words, and inside a word only when it is wider than a row."""
    rows = wrap("to be or notwithstanding", 50, 10, 5, bold=False, measure=measure)

    assert rows == ["to be or", "notwithsta", "nding"]


@given(st.text(min_size=1), st.floats(10, 200))
def test_fitted_words_fit(words, width):
    """The size found is the largest one that fits, and never above the largest allowed."""
    size = fit(words, width, 80, 0.001, bold=False, measure=measure)
    assume(size > 0.001)

    assert size <= 80
    assert measure(words, size, bold=False) <= width * 1.000001
    assert size == 80 or measure(words, size * 1.01, bold=False) > width


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), st.integers(1, 5))
def test_a_code_in_parts_keeps_every_letter(code, count):
    """Cut in parts, a code is still the same code."""
    parts = parts_of_code(code, count)

    assert len(parts) <= count
    assert "".join(parts) == code


@pytest.mark.parametrize(
    ("code", "parts"), [("NORTH-EAST-17", ["NORTH-", "EAST-17"]), ("ABCDEFGH", ["ABCD", "EFGH"]), ("A", ["A"])]
)
def test_a_code_is_cut_after_a_separator(code, parts):
    """Where a separator is near the middle, the cut comes after it."""
    assert parts_of_code(code, 2) == parts
