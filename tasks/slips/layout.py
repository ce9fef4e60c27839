# SPDX-License-Identifier: Apache-2.0
"""The layout of a slip: the place and size of each element, for a medium and a font's measure. Pure.

From the top: a banner if urgent, the delivery code as large as possible, recipient, sender, and the item. Both codes
are at the bottom, always at the same place. No text is left out for lack of space: the text in between shrinks.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Final

from schemas.print_jobs import Address, SlipContent
from schemas.slip_codes import short_code
from tasks.slips.elements import CAP_HEIGHT, POINT_MM, Code128, QrCode, Rule, Slip, Text
from tasks.slips.media import Medium
from tasks.slips.symbologies import dots_per_module, is_encodable
from tasks.slips.text_fitting import ELLIPSIS, Measure, fit, split_code, wrap

LEADING: Final = 1.2
"""Distance of base lines, in font sizes."""

DESCENT: Final = 0.24
"""Depth of letters below the base line, in font sizes (DejaVu Sans)."""

_WITHOUT_DESCENDERS: Final = re.compile(r"[A-IK-PR-Z0-9.-]+")

QR_SIDE: Final = 24.0
BARS_HEIGHT: Final = 14.0
SMALLEST: Final = 5.5
"""Minimum font size: smaller text is not legible at 203 dots per inch."""

LARGEST_REDUCTION: Final = 0.66
"""Smallest factor by which a text is reduced to keep its longest word whole."""

CODE_SPACING: Final = 2.4
"""Free space above and below the delivery code, together."""

LARGEST_CODE: Final = 130.0
SINGLE_LINE_CODE: Final = 26.0
"""Minimum size of a delivery code on one line; a code that would be smaller is set on several lines."""

SCALES: Final = (1.15, 1.07, 1.0, 0.93, 0.86, 0.79, 0.72, 0.65, 0.58, 0.5)
"""Scales of the text between delivery code and codes. The layout uses the largest at which all of it fits."""


def bars_fit(barcode: str, medium: Medium) -> bool:
    """True when `barcode` can be printed as bars: Code 128 can encode it, and `medium` is wide enough."""
    return is_encodable(barcode) and dots_per_module(barcode, medium.inner_width) > 0


def depth(text: str) -> float:
    """Depth of `text` below the base line, in font sizes. Most delivery codes have no descenders."""
    return 0.02 if _WITHOUT_DESCENDERS.fullmatch(text) else DESCENT


@dataclass
class _Column:
    """Lines below each other, from 0 downwards."""

    medium: Medium
    measure: Measure
    scale: float = 1.0
    largest: float = LARGEST_CODE
    """Maximum font size of the column: the delivery code is larger."""
    texts: list[Text] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    height: float = 0.0

    def size(self, points: float) -> float:
        """`points` at this column's scale."""
        return min(self.largest, max(SMALLEST, points * self.scale))

    def line(self, text: str, size: float, *, bold: bool = False, role: str = "") -> None:
        """One line at the left margin."""
        base = self.height + size * POINT_MM * (CAP_HEIGHT + (LEADING - CAP_HEIGHT - DESCENT) / 2)
        self.texts.append(Text(text, self.medium.margin, base, size, bold, role=role))
        self.height += size * POINT_MM * LEADING

    def block(self, text: str, points: float, lines: int, *, bold: bool = False, role: str = "") -> None:
        """A text on at most `lines` lines; reduced a little where that keeps its longest word whole."""
        size = self.size(points)
        widest = max((self.measure(word, size, bold) for word in text.split()), default=0.0)
        if (
            self.medium.inner_width < widest <= self.medium.inner_width / LARGEST_REDUCTION
            and size * LARGEST_REDUCTION >= SMALLEST
        ):
            size *= self.medium.inner_width / widest * 0.999
        for row in wrap(text, self.medium.inner_width, size, lines, bold=bold, measure=self.measure):
            self.line(row, size, bold=bold, role=role)

    def banner(self, text: str) -> None:
        """A line in white on black."""
        size = fit(text, self.medium.inner_width - 2, min(16, self.largest), 4, bold=True, measure=self.measure)
        base = self.height + size * POINT_MM * (CAP_HEIGHT + 0.25)
        self.texts.append(Text(text, self.medium.margin, base, size, bold=True, inverted=True, role="banner"))
        self.height = base + size * POINT_MM * 0.25 + 1.2

    def rule(self) -> None:
        """A horizontal line."""
        self.rules.append(Rule(self.height + 1.2))
        self.height += 2.4

    def moved(self, down: float) -> tuple[list[Text], list[Rule]]:
        """Texts and rules, moved `down` by that length."""
        return (
            [replace(text, y=text.y + down) for text in self.texts],
            [replace(rule, y=rule.y + down) for rule in self.rules],
        )


@dataclass(frozen=True)
class _Code:
    """The delivery code on one line, or a long one on several, at most as large as the width allows."""

    parts: tuple[str, ...]
    size: float

    def height(self) -> float:
        return self.size * POINT_MM * (CAP_HEIGHT + depth(self.parts[-1]) + (len(self.parts) - 1) * LEADING)

    def within(self, room: float) -> "_Code":
        """The same code, at most `room` high."""
        return replace(self, size=min(self.size, self.size * room / self.height()))

    def texts(self, top: float, medium: Medium, measure: Measure) -> list[Text]:
        """Its lines below `top`, centred."""
        lines, base = [], top + self.size * POINT_MM * CAP_HEIGHT
        for part in self.parts:
            x = (medium.width - measure(part, self.size, True)) / 2
            lines.append(Text(part, x, base, self.size, bold=True, role="delivery-code"))
            base += self.size * POINT_MM * LEADING
        return lines


def compose(content: SlipContent, measure: Measure, medium: Medium) -> Slip:
    """Lay out `content` on `medium`.

    The delivery code is the largest text on the slip. Without one, the lender's name and address replace it.
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
        code = code.within(space - CODE_SPACING)
        texts += code.texts(top + (space - code.height()) / 2, medium, measure)
    lower, lines = body.moved(top + (room - body.height if code else 0))
    return Slip(medium, (*texts, *lower, *foot), (*rules, *lines), barcode, qr)


def _widest(text: str, measure: Measure, medium: Medium) -> _Code:
    """The delivery code as large as the width allows, on the number of lines that makes it largest."""
    candidates = []
    for count in (1, 2, 3, 4):
        parts = split_code(text, count)
        sizes = (fit(part, medium.inner_width, LARGEST_CODE, 1, bold=True, measure=measure) for part in parts)
        candidates.append(_Code(tuple(parts), min(sizes)))
        if candidates[-1].size >= SINGLE_LINE_CODE:
            return candidates[-1]
    return max(candidates, key=lambda code: code.size)


@dataclass(frozen=True)
class _Limits:
    """The numbers of lines that the texts of a body may take."""

    name: int
    address: int
    sender: int
    title: int
    author: int


_ANY: Final = 100
"""More lines than any slip has."""


def _largest_body(content: SlipContent, empty: _Column, code: _Code | None, room: float) -> _Column:
    """The text below the delivery code, at the largest scale that leaves the code its space; else the smallest.

    Names and addresses are complete while they fit at any scale. Title, author and damage note take further lines where
    white space would remain.
    """
    for scale in SCALES:
        roomy = scale >= SCALES[4]
        complete = _Limits(_ANY, _ANY, _ANY, 2 + roomy, 1)
        body = _filled(empty, scale, content, complete)
        if body.height + _needed(code, scale) <= room:
            return _with_further_lines(body, content, complete, room - (code.height() + CODE_SPACING if code else 0))
    for scale in SCALES:
        roomy = scale >= SCALES[4]
        limits = _Limits(2 if code else 4, 1 + roomy, 1 + roomy, 2 + roomy, 1)
        body = _filled(empty, scale, content, limits)
        if body.height + _needed(code, scale) <= room:
            break
    return body


def _needed(code: _Code | None, scale: float) -> float:
    """The height that the delivery code must have, at least."""
    return code.within(26 * scale).height() + CODE_SPACING if code else 0


def _with_further_lines(body: _Column, content: SlipContent, limits: _Limits, room: float) -> _Column:
    """The same body with as many lines of title, author and damage note as fit into `room`."""
    empty = replace(body, texts=[], rules=[], height=0.0)
    for title, author in ((1, 0), (0, 1)):
        for _ in range(_ANY):
            more = replace(limits, title=limits.title + title, author=limits.author + author)
            longer = _filled(empty, body.scale, content, more)
            if len(longer.texts) == len(body.texts) or longer.height > room:
                break
            body, limits = longer, more
    return body


def _filled(empty: _Column, scale: float, content: SlipContent, limits: _Limits) -> _Column:
    body = replace(empty, scale=scale, texts=[], rules=[])
    if content.delivery_code:
        body.rule()
        body.block("RETURN TO", 7.5, 1, bold=True)
        _address(body, content.return_to, 14, 11.5, limits)
    else:
        body.block("NO DELIVERY CODE", 11, 1, bold=True, role="no-delivery-code")
        body.rule()
        body.block("RETURN TO", 9, 1, bold=True)
        _address(body, content.return_to, 24, 16, limits)
    body.rule()
    if content.sent_from_code:
        body.block(f"FROM {content.sent_from_code}", 9, 4, bold=True, role="sent-from-code")
    else:
        body.block("FROM", 7, 1, bold=True)
    body.block(content.sent_from.name, 9, limits.sender, bold=True, role="sent-from")
    body.block(", ".join(content.sent_from.lines), 8, max(2, limits.sender), role="sender-address")
    body.rule()
    if content.damage_note:
        body.block(f"DAMAGE REPORTED: {content.damage_note}", 9, limits.title, bold=True, role="damage")
    body.block(content.title, 11, limits.title, bold=True, role="title")
    if content.author:
        body.block(content.author, 9, limits.author, role="author")
    return body


def _address(body: _Column, address: Address, large: float, usual: float, limits: _Limits) -> None:
    body.height += 0.6  # space for accents on capitals: Ö
    body.block(address.name, large, limits.name, bold=True, role="return-to")
    for line in address.lines:
        body.block(line, usual, limits.address, role="address")


def _foot(content: SlipContent, measure: Measure, medium: Medium) -> tuple[list[Text], Code128 | None, QrCode]:
    """The codes and the small print, laid out from the bottom, so that they are always at the same place."""
    side = QR_SIDE
    top = medium.height - medium.margin - side
    qr = QrCode(content.code, medium.width - medium.margin - side, top, side)
    small = _Column(medium, measure)
    for text in (
        f"Item {content.item_of[0]} of {content.item_of[1]}" if content.item_of else "",
        f"Request {content.external_id}",
        f"Returned {content.returned_on:%Y-%m-%d}",
        f"Slip {short_code(content.job_id)}",
    ):
        bold = text.startswith("Item")
        width = medium.inner_width - side - 5  # five millimetres: the quiet zone of the QR code
        size = fit(text, width, 12 if bold else 9, 6, bold=bold, measure=measure)
        for row in wrap(text, width, size, 5, bold=bold, measure=measure):
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
    for size, lines in ((14, 2), (11, 3), (9, 4)):  # staff type it: it must be complete
        rows = wrap(value, medium.inner_width, size, lines, bold=True, measure=measure)
        if not (rows and rows[-1].endswith(ELLIPSIS)):
            break
    for row in rows:
        column.line(row, size, bold=True, role="barcode")
    typed, _ = column.moved(base + 1 - column.height)
    return [*texts, *typed], None, qr
