# SPDX-License-Identifier: Apache-2.0
"""Fitting of texts into a width."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.slips.text_fitting import ELLIPSIS, fit, split_code, wrap


def measure(words, size, bold):
    """Every letter is half as wide as it is high, and a point is a millimetre."""
    return len(words) * size / 2


@given(st.text(), st.floats(4, 40), st.integers(1, 5))
def test_wrapped_rows_are_within_width_and_number(words, size, lines):
    """For any text, no row is wider than the width, and there are at most so many rows."""
    rows = wrap(words, 100, size, lines, bold=False, measure=measure)

    assert len(rows) <= lines
    assert all(measure(row, size, bold=False) <= 100 for row in rows)


@given(st.text(st.characters(exclude_characters=ELLIPSIS)), st.integers(1, 5))
def test_cut_text_ends_in_an_ellipsis(words, lines):
    """Either every letter is printed, or the last row ends in an ellipsis."""
    rows = wrap(words, 40, 10, lines, bold=False, measure=measure)

    cut = "".join(rows).replace(" ", "") != "".join(words.split())
    assert cut == bool(rows and rows[-1].endswith(ELLIPSIS))


def test_text_is_wrapped_between_words():
    """A word is broken only if it is wider than a row."""
    rows = wrap("to be or notwithstanding", 50, 10, 5, bold=False, measure=measure)

    assert rows == ["to be or", "notwithsta", "nding"]


@given(st.text(min_size=1), st.floats(10, 200))
def test_fitted_size_is_the_largest_that_fits(words, width):
    """The size is never above the largest one allowed."""
    size = fit(words, width, 80, 0.001, bold=False, measure=measure)
    assume(size > 0.001)

    assert size <= 80
    assert measure(words, size, bold=False) <= width * 1.000001
    assert size == 80 or measure(words, size * 1.01, bold=False) > width


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), st.integers(1, 5))
def test_split_code_keeps_every_letter(code, count):
    """The parts of a code, joined, are the code."""
    parts = split_code(code, count)

    assert len(parts) <= count
    assert "".join(parts) == code


@pytest.mark.parametrize(
    ("code", "parts"), [("NORTH-EAST-17", ["NORTH-", "EAST-17"]), ("ABCDEFGH", ["ABCD", "EFGH"]), ("A", ["A"])]
)
def test_code_is_split_after_a_separator(code, parts):
    """A separator near the middle ends the first part."""
    assert split_code(code, 2) == parts
