# SPDX-License-Identifier: Apache-2.0
"""Drawing a slip as a PDF of one page, with an embedded font: the same slip gives the same bytes."""

import io
import itertools
import unicodedata
from functools import cache, lru_cache
from importlib.resources import as_file, files

from reportlab import rl_config
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from schemas.print_jobs import Address, SlipContent
from tasks.slips.bidi import can_be_set, in_order_of_sight, shaped
from tasks.slips.layout import CAPITALS, POINT_MM, Code128, QrCode, Slip, bars_fit, compose
from tasks.slips.media import MEDIA, Medium
from tasks.slips.symbologies import DOT_MM, bars, dots_per_module, has_bars, squares

REGULAR, BOLD = "DejaVuSans", "DejaVuSans-Bold"

MISSING = "[…]"
"""Stands for a run of characters that the font does not have: told on purpose, never a black box."""


@cache
def _fonts() -> tuple[TTFont, TTFont]:
    """Load the embedded fonts once per process."""
    # ASCII85 is for channels of seven bits, and would take a fifth of the time of a slip.
    rl_config.useA85 = 0
    loaded = []
    for name in (REGULAR, BOLD):
        with as_file(files("tasks.slips") / "fonts" / f"{name}.ttf") as path:
            font = TTFont(name, str(path))
        pdfmetrics.registerFont(font)
        loaded.append(font)
    return loaded[0], loaded[1]


@cache
def _glyphs() -> frozenset[int]:
    """Code points that both fonts have."""
    regular, bold = _fonts()
    return frozenset(regular.face.charToGlyph) & frozenset(bold.face.charToGlyph)


@lru_cache(maxsize=8192)
def _width_at_one_point(words: str, bold: bool) -> float:
    _fonts()
    return float(pdfmetrics.stringWidth(words, BOLD if bold else REGULAR, 1) / mm)


def measure(words: str, size: float, bold: bool) -> float:
    """Width of `words` in millimetres at `size` points."""
    return _width_at_one_point(words, bold) * size


@lru_cache(maxsize=4096)
def printable(words: str) -> str:
    """`words` as the fonts can show them.

    Characters are composed (NFC), Arabic letters take their forms; a run the fonts lack, such as Chinese, becomes
    `[…]`; control and format characters go.
    """
    shown: list[str] = []
    known = _glyphs()
    for char in shaped(unicodedata.normalize("NFC", words)):
        kind = unicodedata.category(char)
        if char.isspace():
            shown.append(" ")
        elif kind in {"Cc", "Cf", "Cs"}:
            continue
        elif ord(char) in known and kind != "Co" and can_be_set(char):
            shown.append(char)
        else:
            tail = "".join(shown).rstrip()
            shown = [tail] if tail.endswith(MISSING) else [*shown, MISSING]
    return " ".join("".join(shown).split())


def unprintable(content: SlipContent, media: str = "label-4x6") -> tuple[str, ...]:
    """The parts of a slip (`title`, `return address`, ...) of which letters are lacking, so that staff are warned.

    The barcode is one of them when it stands there without bars.
    """
    parts = {
        "delivery code": content.delivery_code or "",
        "return address": " ".join((content.return_to.name, *content.return_to.lines)),
        "sender": " ".join((content.sent_from.name, *content.sent_from.lines)),
        "title": content.title,
        "author": content.author or "",
        "request": content.external_id,
        "damage note": content.damage_note or "",
        "barcode": content.barcode,
    }
    lacking = [part for part, words in parts.items() if MISSING in printable(words) and MISSING not in words]
    without_bars = not bars_fit(content.barcode, MEDIA[media])
    return tuple([*lacking, "barcode"] if without_bars and "barcode" not in lacking else lacking)


def compose_slip(content: SlipContent, media: str) -> Slip:
    """Lay out `content` as it can be shown on the medium named `media`. Raises `KeyError` for an unknown medium."""
    return compose(_shown(content), measure, MEDIA[media])


def render_pdf(content: SlipContent, media: str = "label-4x6") -> bytes:
    """Draw `content` on the medium named `media`. Raises `KeyError` for an unknown medium."""
    slip = compose_slip(content, media)
    output = io.BytesIO()
    width, height = slip.medium.page
    canvas = Canvas(output, pagesize=(width * mm, height * mm), invariant=True, pageCompression=1)
    canvas.setTitle(f"Lending slip {content.external_id}")
    canvas.setAuthor("bookdrop")
    _draw(canvas, slip)
    canvas.showPage()
    canvas.save()
    return bytes(output.getvalue())


def _shown(content: SlipContent) -> SlipContent:
    """The content with every text as the fonts can show it; what is printed as bars stays to the letter."""

    def address(given: Address) -> Address:
        return Address(name=printable(given.name), lines=tuple(printable(line) for line in given.lines))

    return content.model_copy(
        update={
            "delivery_code": printable(content.delivery_code) if content.delivery_code else None,
            "return_to": address(content.return_to),
            "sent_from": address(content.sent_from),
            "title": printable(content.title),
            "author": printable(content.author) if content.author else None,
            "external_id": printable(content.external_id),
            "barcode": content.barcode if has_bars(content.barcode) else printable(content.barcode),
            "damage_note": printable(content.damage_note) if content.damage_note else None,
        }
    )


def _draw(canvas: Canvas, slip: Slip) -> None:
    medium = slip.medium

    def up(y: float) -> float:
        return float((medium.page[1] - y) * mm)

    for text in slip.texts:
        if text.inverted:
            low, high = text.y + text.size * POINT_MM * 0.25, text.size * POINT_MM * (CAPITALS + 0.5)
            canvas.rect(medium.margin * mm, up(low), medium.inner_width * mm, high * mm, stroke=0, fill=1)
            canvas.setFillGray(1)
        canvas.setFont(BOLD if text.bold else REGULAR, text.size)
        canvas.drawString((text.x + (1 if text.inverted else 0)) * mm, up(text.y), in_order_of_sight(text.words))
        if text.inverted:
            canvas.setFillGray(0)
    canvas.setLineWidth(0.6)
    for rule in slip.rules:
        canvas.line(medium.margin * mm, up(rule.y), (medium.width - medium.margin) * mm, up(rule.y))
    if slip.barcode is not None:
        _draw_bars(canvas, slip.barcode, medium)
    _draw_qr(canvas, slip.qr, medium)
    if medium.sheet is not None:
        _draw_cut(canvas, medium)


def _draw_cut(canvas: Canvas, medium: Medium) -> None:
    """Dashes where the slip is cut, or folded, out of its sheet."""
    _, height = medium.page
    canvas.setDash(4, 4)
    canvas.line(medium.width * mm, height * mm, medium.width * mm, (height - medium.height) * mm)
    canvas.line(0, (height - medium.height) * mm, medium.width * mm, (height - medium.height) * mm)


def _draw_bars(canvas: Canvas, code: Code128, medium: Medium) -> None:
    """Bars whose edges fall on the dots of a 203 dpi head, as wide as there is room, at most three dots a module.

    Each bar is drawn a tenth of a dot narrower on both sides: a head (and a rasteriser) inks every dot that is
    touched, and would else make every bar one dot too wide.
    """
    module = DOT_MM * dots_per_module(code.value, code.width)
    bottom = (medium.page[1] - code.y - code.height) * mm
    at = round(code.x / DOT_MM) * DOT_MM
    path = canvas.beginPath()
    for is_bar, width in bars(code.value):
        if is_bar:
            inset = DOT_MM / 10
            path.rect((at + inset) * mm, bottom, (width * module - 2 * inset) * mm, code.height * mm)
        at += width * module
    canvas.drawPath(path, stroke=0, fill=1)


def _draw_qr(canvas: Canvas, code: QrCode, medium: Medium) -> None:
    matrix = squares(code.value)
    boxes = []
    for row, line in enumerate(matrix):
        column = 0
        for dark, run in itertools.groupby(line):
            width = len(list(run))
            if dark:
                boxes.append(f"{column} {-row - 1} {width} 1 re")
            column += width
    canvas.saveState()
    canvas.translate(code.x * mm, (medium.page[1] - code.y) * mm)
    canvas.scale(code.side * mm / len(matrix), code.side * mm / len(matrix))
    # Whole numbers of modules, written as they are: reportlab's own rectangles take as long as all the rest.
    canvas.addLiteral(" ".join([*boxes, "f"]))
    canvas.restoreState()
