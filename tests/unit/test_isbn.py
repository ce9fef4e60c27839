# SPDX-License-Identifier: Apache-2.0
"""An ISBN in a text, in both lengths."""

import pytest

from schemas.isbn import find_isbn


@pytest.mark.parametrize(
    ("text", "isbn"),
    [
        ("9783161484100", "9783161484100"),
        ("978-3-16-148410-0", "9783161484100"),
        ("3-16-148410-X", "9783161484100"),
        ("316148410x", "9783161484100"),
        ("080442957X (hbk.)", "9780804429573"),
        ("9783161484101; 3161484100; 316148410X", "9783161484100"),
        ("979-10-90636-07-1", "9791090636071"),
        ("3161484100", None),
        ("9783161484101", None),
        ("31000012345678", None),
        ("X161484100", None),
        ("", None),
        ("a book", None),
    ],
)
def test_first_valid_number_is_found(text, isbn):
    """Hyphens, spaces and further text do not matter; a wrong check digit or length is not an ISBN."""
    assert find_isbn(text) == isbn
