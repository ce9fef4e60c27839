# SPDX-License-Identifier: Apache-2.0
"""The elements of a laid-out slip: texts, rules and codes with their places and sizes. Pure.

Lengths are millimetres from the top left corner of the medium; font sizes are points.
"""

from dataclasses import dataclass
from typing import Final

from tasks.slips.media import Medium

POINT_MM: Final = 25.4 / 72
"""A typographic point in millimetres."""

CAP_HEIGHT: Final = 0.73
"""Height of capitals above the base line, in font sizes (DejaVu Sans)."""


@dataclass(frozen=True)
class Text:
    """A line of text; `y` is its base line."""

    string: str
    """In logical order."""
    x: float
    y: float
    size: float
    bold: bool = False
    inverted: bool = False
    """White on a black bar over the whole width."""
    role: str = ""
    """The meaning of the text: `delivery-code` for example."""


@dataclass(frozen=True)
class Rule:
    """A horizontal line over the inner width."""

    y: float


@dataclass(frozen=True)
class Code128:
    """The item's barcode, `height` high below `y`."""

    value: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class QrCode:
    """The slip's own code, a square."""

    value: str
    x: float
    y: float
    side: float


@dataclass(frozen=True)
class Slip:
    """All elements of one slip."""

    medium: Medium
    texts: tuple[Text, ...]
    rules: tuple[Rule, ...]
    barcode: Code128 | None
    """`None` when bars are not possible (see `layout.bars_fit`); then the barcode is one of the texts."""
    qr: QrCode
