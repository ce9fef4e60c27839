# SPDX-License-Identifier: Apache-2.0
"""Text from outside: printable, bounded, and unchanged where it was so before."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.external_text import KEPT_FORMATS, REMOVED, one_line, printable, text_lines

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Currently printing another job.", "Currently printing another job."),
        ("\x1b[2J\x1b[31mno paper", "[2J[31mno paper"),
        ("\x9b31mred", "31mred"),
        ("no\x00 paper", "no paper"),
        ("paid \u202e00.001\u202c", "paid 00.001"),
        ("\u2066isolated\u2069", "isolated"),
        ("a\r\nb\u2028c\x85d\te", "a b c d e"),
        ("lone \ud800", "lone"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("Café, Ω, 本, 📚", "Café, Ω, 本, 📚"),
        ("\x00\x1b\u202e", ""),
    ],
)
def test_line_has_printable_characters_only(text, line):
    """Escapes, NUL, overrides and line ends are removed; letters of every script stay."""
    assert one_line(text) == line


@given(ANY_TEXT, st.integers(1, 70))
def test_any_text_becomes_a_bounded_printable_line(text, max_length):
    """Whatever comes in, the line can be encoded and stored, fits, and is its own line."""
    line = one_line(text, max_length)

    line.encode()
    assert len(line) <= max_length
    assert all(char not in "\0\n\r\x1b" for char in line)
    assert not {char for char in line if unicodedata.category(char) in REMOVED} - KEPT_FORMATS
    assert one_line(line, max_length) == line or line.endswith("…")


@given(ANY_TEXT)
def test_any_text_keeps_its_lines(text):
    """Newlines and tabs are the only controls that stay."""
    lines = text_lines(text)

    lines.encode()
    assert not {char for char in lines if unicodedata.category(char) in REMOVED} - KEPT_FORMATS - {"\n", "\t"}
    assert printable(lines) == lines
