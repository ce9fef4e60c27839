# SPDX-License-Identifier: Apache-2.0
"""The page of import columns is the program's own."""

from pathlib import Path

from docs.generate.import_columns import PAGE, page

ROOT = Path(__file__).parents[2]


def test_the_page_is_current():
    """`python -m docs.generate.import_columns` would change nothing."""
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page()
