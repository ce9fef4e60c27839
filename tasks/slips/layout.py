# SPDX-License-Identifier: Apache-2.0
"""A slip as a plain description: which text stands where and how large. Pure; no file is drawn here.

Lengths are millimetres from the top left corner of the medium; font sizes are points.
From the top: what is urgent, the delivery code as large as there is room for, to whom, from whom, what it is; and at
the bottom, always at the same place, both codes. Nothing is left out for want of room: the text in between shrinks.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Final

from schemas.print_jobs import Address, SlipContent
from tasks.slips.media import Medium
from tasks.slips.symbologies import dots_per_module, has_bars
from tasks.slips.text_fitting import ELLIPSIS, Measure, fit, parts_of_code, wrap

POINT_MM: Final = 25.4 / 72
"""A typographic point in millimetres."""

LEADING: Final = 1.2
"""Distance of base lines, in font sizes."""

CAPITALS: Final = 0.73
"""How far letters reach above the base line, in font sizes (DejaVu Sans)."""

TAILS: Final = 0.24
"""How far letters with a tail reach below it."""

_WITHOUT_TAILS: Final = re.compile(r"[A-IK-PR-Z0-9.-]+")

QR_SIDE: Final = 24.0
BARS_HEIGHT: Final = 14.0
SMALLEST: Final = 5.5
"""Nothing is set smaller: at 203 dots an inch it could not be read."""

SMALLER: Final = 0.66
"""How much smaller a text may become for a word's sake."""

AIR: Final = 2.4
"""What stays free above and below the delivery code together."""

LARGEST_CODE: Final = 130.0
SINGLE_LINE_CODE: Final = 26.0
"""A delivery code that would be smaller than this in one line is set in several."""

SCALES: Final = (1.15, 1.07, 1.0, 0.93, 0.86, 0.79, 0.72, 0.65, 0.58, 0.5)
"""Sizes of the text between delivery code and codes, tried from the largest until all of it has room."""


@dataclass(frozen=True)
class Text:
    """A line of text; `y` is its base line."""

    words: str
    """In the order of reading."""
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
    """All that stands on one slip."""

    medium: Medium
    texts: tuple[Text, ...]
    rules: tuple[Rule, ...]
    barcode: Code128 | None
    """`None` when there can be no bars (see `bars_fit`): the barcode stands there as text then."""
    qr: QrCode


def bars_fit(barcode: str, medium: Medium) -> bool:
    """Tell whether `barcode` can be bars: Code 128 knows its letters, and `medium` is wide enough."""
    return has_bars(barcode) and dots_per_module(barcode, medium.inner_width) > 0


def depth(words: str) -> float:
    """How far `words` reach below the base line, in font sizes: most delivery codes have no tails."""
    return 0.02 if _WITHOUT_TAILS.fullmatch(words) else TAILS


@dataclass
class _Column:
    """Lines put one under the other, from 0 downwards."""

    medium: Medium
    measure: Measure
    scale: float = 1.0
    largest: float = LARGEST_CODE
    """Nothing here is set larger: the delivery code is."""
    texts: list[Text] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    height: float = 0.0

    def size(self, points: float) -> float:
        """`points` at this column's scale."""
        return min(self.largest, max(SMALLEST, points * self.scale))

    def line(self, words: str, size: float, *, bold: bool = False, role: str = "") -> None:
        """One line at the left margin."""
        base = self.height + size * POINT_MM * (CAPITALS + (LEADING - CAPITALS - TAILS) / 2)
        self.texts.append(Text(words, self.medium.margin, base, size, bold, role=role))
        self.height += size * POINT_MM * LEADING

    def block(self, words: str, points: float, lines: int, *, bold: bool = False, role: str = "") -> None:
        """A text in at most `lines` lines; a little smaller where that keeps its longest word whole."""
        size = self.size(points)
        widest = max((self.measure(word, size, bold) for word in words.split()), default=0.0)
        if self.medium.inner_width < widest <= self.medium.inner_width / SMALLER and size * SMALLER >= SMALLEST:
            size *= self.medium.inner_width / widest * 0.999
        for row in wrap(words, self.medium.inner_width, size, lines, bold=bold, measure=self.measure):
            self.line(row, size, bold=bold, role=role)

    def banner(self, words: str) -> None:
        """A loud line: white on black."""
        size = fit(words, self.medium.inner_width - 2, min(16, self.largest), 4, bold=True, measure=self.measure)
        base = self.height + size * POINT_MM * (CAPITALS + 0.25)
        self.texts.append(Text(words, self.medium.margin, base, size, bold=True, inverted=True, role="banner"))
        self.height = base + size * POINT_MM * 0.25 + 1.2

    def rule(self) -> None:
        """A line across."""
        self.rules.append(Rule(self.height + 1.2))
        self.height += 2.4

    def moved(self, down: float) -> tuple[list[Text], list[Rule]]:
        """All of it, set `down` by so much."""
        return (
            [replace(text, y=text.y + down) for text in self.texts],
            [replace(rule, y=rule.y + down) for rule in self.rules],
        )


@dataclass(frozen=True)
class _Code:
    """The delivery code, in one line or, a long one, in several, as large as the width allows or smaller."""

    parts: tuple[str, ...]
    size: float

    def height(self) -> float:
        return self.size * POINT_MM * (CAPITALS + depth(self.parts[-1]) + (len(self.parts) - 1) * LEADING)

    def within(self, room: float) -> "_Code":
        """The same, no higher than `room`."""
        return replace(self, size=min(self.size, self.size * room / self.height()))

    def texts(self, top: float, medium: Medium, measure: Measure) -> list[Text]:
        """Its lines below `top`, each in the middle of the width."""
        found, base = [], top + self.size * POINT_MM * CAPITALS
        for part in self.parts:
            x = (medium.width - measure(part, self.size, True)) / 2
            found.append(Text(part, x, base, self.size, bold=True, role="delivery-code"))
            base += self.size * POINT_MM * LEADING
        return found


def compose(content: SlipContent, measure: Measure, medium: Medium) -> Slip:
    """Lay out `content` on `medium`.

    The delivery code is the largest thing on the slip. Without one, the lender's name and address take its place.
    """
    code = _widest(content.delivery_code, measure, medium) if content.delivery_code else None
    largest = 0.9 * code.size if code else LARGEST_CODE
    head = _Column(medium, measure, largest=largest)
    if content.urgent:
        head.banner("URGENT: RECALLED BY LENDER")
    if content.copy_number > 1:
        head.banner(f"COPY {content.copy_number}")
    foot, barcode, qr = _foot(content, measure, medium)
    top = medium.margin + head.height
    room = (barcode.y if barcode else qr.y - BARS_HEIGHT - 9) - 3 - top
    body = _largest_body(content, _Column(medium, measure, largest=largest), code, room)
    texts, rules = head.moved(medium.margin)
    if code:
        space = room - body.height
        code = code.within(space - AIR)
        texts += code.texts(top + (space - code.height()) / 2, medium, measure)
    lower, lines = body.moved(top + (room - body.height if code else 0))
    return Slip(medium, (*texts, *lower, *foot), (*rules, *lines), barcode, qr)


def _widest(words: str, measure: Measure, medium: Medium) -> _Code:
    """The delivery code as large as the width allows; a long one in as many lines as make it largest."""
    tried = []
    for count in (1, 2, 3, 4):
        parts = parts_of_code(words, count)
        sizes = (fit(part, medium.inner_width, LARGEST_CODE, 1, bold=True, measure=measure) for part in parts)
        tried.append(_Code(tuple(parts), min(sizes)))
        if tried[-1].size >= SINGLE_LINE_CODE:
            return tried[-1]
    return max(tried, key=lambda code: code.size)


def _largest_body(content: SlipContent, empty: _Column, code: _Code | None, room: float) -> _Column:
    """The text under the delivery code, as large as leaves that its room; at worst the smallest."""
    body = empty
    for scale in SCALES:
        body = replace(empty, scale=scale, texts=[], rules=[])
        _fill(body, content)
        wanted = code.within(26 * scale).height() + AIR if code else 0
        if body.height + wanted <= room:
            break
    return body


def _fill(body: _Column, content: SlipContent) -> None:
    roomy = body.scale >= SCALES[4]
    if content.delivery_code:
        body.rule()
        body.block("RETURN TO", 7.5, 1, bold=True)
        _address(body, content.return_to, 14, 11.5, 2, roomy=roomy)
    else:
        body.block("NO DELIVERY CODE", 11, 1, bold=True, role="no-delivery-code")
        body.rule()
        body.block("RETURN TO", 9, 1, bold=True)
        _address(body, content.return_to, 24, 16, 4, roomy=roomy)
    body.rule()
    body.block("FROM", 7, 1, bold=True)
    body.block(content.sent_from.name, 9, 1 + roomy, bold=True, role="sent-from")
    body.block(", ".join(content.sent_from.lines), 8, 2)
    body.rule()
    if content.damage_note:
        body.block(f"DAMAGE REPORTED: {content.damage_note}", 9, 2 + roomy, bold=True, role="damage")
    body.block(content.title, 11, 2 + roomy, bold=True, role="title")
    if content.author:
        body.block(content.author, 9, 1, role="author")


def _address(body: _Column, address: Address, large: float, usual: float, lines: int, *, roomy: bool) -> None:
    body.height += 0.6  # room for what stands on capitals, such as Ö
    body.block(address.name, large, lines, bold=True, role="return-to")
    for line in address.lines:
        body.block(line, usual, 1 + roomy, role="address")


def _foot(content: SlipContent, measure: Measure, medium: Medium) -> tuple[list[Text], Code128 | None, QrCode]:
    """The codes and the small print, set from the bottom up, so that they are always at the same place."""
    side = QR_SIDE
    top = medium.height - medium.margin - side
    qr = QrCode(content.code, medium.width - medium.margin - side, top, side)
    small = _Column(medium, measure)
    for words in (
        f"Item {content.item_of[0]} of {content.item_of[1]}" if content.item_of else "",
        f"Request {content.external_id}",
        f"Returned {content.returned_on:%Y-%m-%d}",
        f"Slip {str(content.job_id)[-12:]}",
    ):
        bold = words.startswith("Item")
        width = medium.inner_width - side - 5  # five millimetres: the white that a reader of the QR code needs
        size = fit(words, width, 12 if bold else 9, 6, bold=bold, measure=measure)
        for row in wrap(words, width, size, 5, bold=bold, measure=measure):
            small.line(row, size, bold=bold, role="small-print")
    texts, _ = small.moved(medium.height - medium.margin - small.height)
    value, base = content.barcode, top - 4
    if bars_fit(value, medium):
        size = fit(value, medium.inner_width, 9, 4, bold=False, measure=measure)
        texts.append(Text(value, medium.margin, base, size, role="barcode"))
        bars = base - 4 - BARS_HEIGHT
        return texts, Code128(value, medium.margin, bars, medium.inner_width, BARS_HEIGHT), qr
    column = _Column(medium, measure)
    column.block("BARCODE", 7.5, 1, bold=True)
    for size, lines in ((14, 2), (11, 3), (9, 4)):  # it will be typed: all of it must stand there
        rows = wrap(value, medium.inner_width, size, lines, bold=True, measure=measure)
        if not (rows and rows[-1].endswith(ELLIPSIS)):
            break
    for row in rows:
        column.line(row, size, bold=True, role="barcode")
    instead, _ = column.moved(base + 1 - column.height)
    return [*texts, *instead], None, qr
