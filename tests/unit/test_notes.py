# SPDX-License-Identifier: Apache-2.0
"""Notes of staff: stored as bounded text."""

import pytest

from tasks.requests.notes import MAX_LENGTH, clean_note


@pytest.mark.parametrize(
    ("note", "cleaned"),
    [
        (None, None),
        ("  \x00\x07 ", None),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("tab\there", "tab\there"),
        ("n" * MAX_LENGTH, "n" * MAX_LENGTH),
    ],
)
def test_note_is_stored_as_text(note, cleaned):
    """Markup stays as it is, control characters are removed, and line ends become newlines."""
    assert clean_note(note) == cleaned


@pytest.mark.parametrize("length", [MAX_LENGTH + 1, 10_000])
def test_long_note_is_cut_to_the_limit(length):
    """A note beyond the limit ends in a mark that it was cut."""
    cleaned = clean_note("n" * length) or ""

    assert len(cleaned) == MAX_LENGTH
    assert cleaned.endswith("[cut]")
