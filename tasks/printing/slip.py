# SPDX-License-Identifier: Apache-2.0
"""A slip as a plain description: which text stands where and how large. Pure; no file is drawn here.

Lengths are millimetres from the top left corner of the medium; font sizes are points.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from schemas.print_jobs import Address, SlipContent

POINT_MM: Final = 25.4 / 72
"""A typographic point in millimetres."""

LEADING: Final = 1.2
"""Distance of base lines, in font sizes."""

QR_SIDE: Final = 24.0
BARS_HEIGHT: Final = 14.0
FOOT: Final = QR_SIDE + 4 + BARS_HEIGHT + 6
"""Height that the codes and the small print take at the bottom."""


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

Measure = Callable[[str, float, bool], float]
"""Width of a text in millimetres: (text, font size in points, bold)."""


@dataclass(frozen=True)
class Text:
    """A line of text; `y` is its base line."""

    words: str
    x: float
    y: float
    size: float
    bold: bool = False
    inverted: bool = False
    """White on a black bar over the whole width."""
    role: str = ""
    """What it is, such as `delivery-code`."""


@dataclass(frozen=True)
class Rule:
    """A horizontal line over the inner width."""

    y: float


@dataclass(frozen=True)
class Code128:
    """The item's barcode, `height` high below `y`, with its text under it."""

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
    """All that stands on one slip."""

    medium: Medium
    texts: tuple[Text, ...]
    rules: tuple[Rule, ...]
    barcode: Code128
    qr: QrCode


def fit(words: str, width: float, largest: float, smallest: float, *, bold: bool, measure: Measure) -> float:
    """The largest size, from `largest` down to `smallest` points, at which `words` is at most `width` wide."""
    at_ten = measure(words, 10.0, bold)
    size = largest if at_ten == 0 else min(largest, width / at_ten * 10.0)
    return max(smallest, size)


def wrap(words: str, width: float, size: float, lines: int, *, bold: bool, measure: Measure) -> list[str]:
    """`words` in at most `lines` lines of `width`; what does not fit ends in an ellipsis, a long word is broken."""
    rest = " ".join(words.split())
    found: list[str] = []
    while rest and len(found) < lines:
        end = _last_that_fits(rest, width, size, bold=bold, measure=measure)
        if end < len(rest):
            space = rest.rfind(" ", 0, end + 1)
            end = space if space > 0 else end
        found.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    if rest and found:
        last = found[-1]
        while last and measure(last + "…", size, bold) > width:
            last = last[:-1].rstrip()
        found[-1] = last + "…"
    return found


def _last_that_fits(words: str, width: float, size: float, *, bold: bool, measure: Measure) -> int:
    low, high = 1, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if measure(words[:middle], size, bold) <= width:
            low = middle
        else:
            high = middle - 1
    return low


class _Composer:
    """Puts one line under the other."""

    def __init__(self, medium: Medium, measure: Measure) -> None:
        self.medium = medium
        self.measure = measure
        self.texts: list[Text] = []
        self.rules: list[Rule] = []
        self.y = medium.margin
        self.floor = medium.height - medium.margin - FOOT

    def line(self, words: str, size: float, *, bold: bool = False, inverted: bool = False, role: str = "") -> None:
        """One line at the left margin."""
        self.y += size * POINT_MM
        self.texts.append(Text(words, self.medium.margin, self.y, size, bold, inverted, role))
        self.y += size * POINT_MM * (LEADING - 1) + (1.2 if inverted else 0)

    def block(self, words: str, size: float, lines: int, *, bold: bool = False, role: str = "") -> None:
        """A text in at most `lines` lines, and in no more than there is room for above the codes."""
        room = int((self.floor - self.y) / (size * POINT_MM * LEADING))
        for each in wrap(words, self.medium.inner_width, size, min(lines, room), bold=bold, measure=self.measure):
            self.line(each, size, bold=bold, role=role)

    def banner(self, words: str) -> None:
        """A loud line: white on black."""
        size = fit(words, self.medium.inner_width - 2, 17, 8, bold=True, measure=self.measure)
        self.y += 1.2
        self.line(words, size, bold=True, inverted=True, role="banner")

    def rule(self) -> None:
        """A line across."""
        self.y += 1.2
        self.rules.append(Rule(self.y))
        self.y += 1.2

    def address(self, heading: str, address: Address, size: float, lines: int) -> None:
        """An address under its heading; the name may take two lines."""
        self.line(heading, 7.5, bold=True)
        self.block(address.name, size, 2, bold=True)
        for each in address.lines[:lines]:
            self.block(each, size * 0.85, 1)


def compose(content: SlipContent, measure: Measure, medium: Medium) -> Slip:
    """Lay out `content` on `medium`.

    The delivery code is the largest thing on the slip. Without one, the lender's name and address take its place.
    """
    page = _Composer(medium, measure)
    for words in _banners(content):
        page.banner(words)
    if content.delivery_code:
        size = fit(content.delivery_code, medium.inner_width, 80, 14, bold=True, measure=measure)
        page.line(content.delivery_code, size, bold=True, role="delivery-code")
        page.rule()
        page.address("RETURN TO", content.return_to, 13, 4)
    else:
        page.line("RETURN TO   (no delivery code)", 9, bold=True)
        page.block(content.return_to.name, 20, 2, bold=True, role="return-to")
        for each in content.return_to.lines:
            page.block(each, 13, 1)
    page.rule()
    page.address("FROM", content.sent_from, 8.5, 2)
    page.rule()
    if content.damage_note:
        page.block(f"Damage reported: {content.damage_note}", 8, 2, bold=True)
    page.block(content.title, 10, 2, bold=True, role="title")
    if content.author:
        page.block(content.author, 9, 1)
    return Slip(medium, *_foot(content, page))


def _banners(content: SlipContent) -> Sequence[str]:
    found = []
    if content.urgent:
        found.append("URGENT: RECALLED BY LENDER")
    if content.copy_number > 1:
        found.append(f"COPY {content.copy_number}")
    return found


def _foot(content: SlipContent, page: _Composer) -> tuple[tuple[Text, ...], tuple[Rule, ...], Code128, QrCode]:
    """The codes and the small print, set from the bottom up, so that they are always at the same place."""
    medium, side = page.medium, QR_SIDE
    bottom = medium.height - medium.margin
    qr = QrCode(content.code, medium.width - medium.margin - side, bottom - side, side)
    left = medium.inner_width - side - 3
    small = [
        f"Request {content.external_id}",
        f"Returned {content.returned_on:%Y-%m-%d}",
        *([f"Item {content.item_of[0]} of {content.item_of[1]}"] if content.item_of else []),
        f"Slip {str(content.job_id)[-12:]}",
    ]
    texts, y = list(page.texts), bottom - side + 3.5
    for words in small:
        size = fit(words, left, 9, 5, bold=False, measure=page.measure)
        texts.append(Text(words, medium.margin, y, size, bold=words.startswith("Item")))
        y += 9 * POINT_MM * 1.35
    top = bottom - side - 4 - BARS_HEIGHT - 5
    barcode = Code128(content.barcode, medium.margin, top, medium.inner_width, BARS_HEIGHT)
    return tuple(texts), tuple(page.rules), barcode, qr
