# SPDX-License-Identifier: Apache-2.0
"""Fit text into a width: scale, wrap, or split it. Pure; widths are millimetres, sizes are points."""

import math
from collections.abc import Callable, Iterator
from typing import Final

Measure = Callable[[str, float, bool], float]
"""Width of a text: (text, font size, bold). Proportional to the size, and the sum of its letters (no kerning)."""

ELLIPSIS: Final = "…"

_SEPARATORS: Final = "-/ ."
_NEAR: Final = 4


def fit(text: str, width: float, largest: float, smallest: float, *, bold: bool, measure: Measure) -> float:
    """The largest size, from `largest` down to `smallest`, at which `text` is at most `width` wide."""
    at_ten = measure(text, 10.0, bold)
    size = largest if at_ten == 0 else min(largest, width / at_ten * 10.0)
    return max(smallest, size)


def wrap(text: str, width: float, size: float, lines: int, *, bold: bool, measure: Measure) -> list[str]:
    """`text` in at most `lines` lines of `width`. An ellipsis replaces the rest; a word that is too long is broken."""
    rows: list[str] = []
    used = 0.0
    space = measure(" ", size, bold)
    for word in text.split():
        for number, piece in enumerate(_pieces(word, width, size, bold=bold, measure=measure)):
            length = measure(piece, size, bold)
            if rows and number == 0 and used + space + length <= width:
                rows[-1] += " " + piece
                used += space + length
            elif len(rows) == lines:
                return [*rows[:-1], _shortened(rows[-1], width, size, bold=bold, measure=measure)] if rows else []
            else:
                rows.append(piece)
                used = length
    return rows


def _pieces(word: str, width: float, size: float, *, bold: bool, measure: Measure) -> Iterator[str]:
    """The word, broken only where necessary: pieces of at most `width`, each of at least one letter."""
    if measure(word, size, bold) <= width:
        yield word
        return
    start, used = 0, 0.0
    for at, letter in enumerate(word):
        length = measure(letter, size, bold)
        if at > start and used + length > width:
            yield word[start:at]
            start, used = at, 0.0
        used += length
    yield word[start:]


def _shortened(row: str, width: float, size: float, *, bold: bool, measure: Measure) -> str:
    while row and measure(row + ELLIPSIS, size, bold) > width:
        row = row[:-1].rstrip()
    return row + ELLIPSIS


def split_code(code: str, count: int) -> list[str]:
    """`code` in at most `count` parts of similar length, cut after a separator where one is near."""
    parts: list[str] = []
    start = 0
    for number in range(1, count):
        ideal = math.ceil(len(code) * number / count)
        near = [at for at in range(ideal - _NEAR, ideal + _NEAR + 1) if start < at < len(code)]
        after_separator = [at for at in near if code[at - 1] in _SEPARATORS]
        cut = min(after_separator, key=lambda at: abs(at - ideal), default=max(ideal, start))
        parts.append(code[start:cut])
        start = cut
    return [part.strip() for part in (*parts, code[start:]) if part.strip()]
