# SPDX-License-Identifier: Apache-2.0
"""The sizes of paper a slip is laid out for, whatever the printer. Pure."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Medium:
    """A size of paper, in millimetres."""

    name: str
    width: float
    height: float
    margin: float = 4.0

    @property
    def inner_width(self) -> float:
        """Width between the margins."""
        return self.width - 2 * self.margin


MEDIA: Final = {"label-4x6": Medium("label-4x6", 101.6, 152.4)}
"""Media by name."""
