# SPDX-License-Identifier: Apache-2.0
"""Markdown tables whose rows are one line each, whatever text their cells hold."""

from collections.abc import Iterable, Iterator, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table. Raises `ValueError` for a row whose number of cells is not that of the header."""
    yield _line(header)
    yield _line(["---"] * len(header))
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under a header of {len(header)}: {row}")
        yield _line(row)


def _line(cells: Sequence[str]) -> str:
    """One row. A line break would end the row, and `|` would end the cell: fold the one, escape the other."""
    texts = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return "|" + "|".join(f" {text} " if text else " " for text in texts) + "|"
