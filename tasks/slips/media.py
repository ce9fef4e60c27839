# SPDX-License-Identifier: Apache-2.0
"""The paper sizes of slips, independent of the printer. Pure."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Medium:
    """A paper size, in millimetres."""

    name: str
    width: float
    height: float
    margin: float = 4.0
    sheet: tuple[float, float] | None = None
    """Width and height of the whole page, when the slip is only its top left corner."""

    @property
    def inner_width(self) -> float:
        """Width between the margins."""
        return self.width - 2 * self.margin

    @property
    def page(self) -> tuple[float, float]:
        """Width and height of the printed page."""
        return self.sheet or (self.width, self.height)

    @property
    def is_label(self) -> bool:
        """True when a label printer can have this medium."""
        return self.sheet is None


MEDIA: Final = {
    medium.name: medium
    for medium in (
        Medium("label-4x6", 101.6, 152.4),
        Medium("a6", 105, 148),
        # Six millimetres: office printers do not reach the edge of a sheet.
        Medium("a4-corner", 105, 148, margin=6, sheet=(210, 297)),
        # The head of a receipt printer is 72 millimetres wide, in the middle of 80.
        Medium("receipt-80", 80, 160),
    )
}
"""Media by name."""
