# SPDX-License-Identifier: Apache-2.0
"""Render a slip as a PDF of one page with embedded fonts: the same slip gives the same bytes."""

import io
import itertools

from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas

from schemas.print_jobs import SlipContent
from tasks.slips.bidi import visual_order
from tasks.slips.elements import CAP_HEIGHT, POINT_MM, Code128, QrCode, Slip
from tasks.slips.media import Medium
from tasks.slips.symbologies import DOT_MM, bars, dots_per_module, qr_modules
from tasks.slips.typeface import BOLD, REGULAR, compose_slip


def render_pdf(content: SlipContent, media: str = "label-4x6") -> bytes:
    """Render `content` on the medium named `media`. Raises `KeyError` for an unknown medium."""
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


def _draw(canvas: Canvas, slip: Slip) -> None:
    medium = slip.medium

    def up(y: float) -> float:
        return float((medium.page[1] - y) * mm)

    for text in slip.texts:
        if text.inverted:
            low, high = text.y + text.size * POINT_MM * 0.25, text.size * POINT_MM * (CAP_HEIGHT + 0.5)
            canvas.rect(medium.margin * mm, up(low), medium.inner_width * mm, high * mm, stroke=0, fill=1)
            canvas.setFillGray(1)
        canvas.setFont(BOLD if text.bold else REGULAR, text.size)
        canvas.drawString((text.x + (1 if text.inverted else 0)) * mm, up(text.y), visual_order(text.string))
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
    """Dashes along which the slip is cut or folded out of its sheet."""
    _, height = medium.page
    canvas.setDash(4, 4)
    canvas.line(medium.width * mm, height * mm, medium.width * mm, (height - medium.height) * mm)
    canvas.line(0, (height - medium.height) * mm, medium.width * mm, (height - medium.height) * mm)


def _draw_bars(canvas: Canvas, code: Code128, medium: Medium) -> None:
    """Bars with edges on the dots of a 203 dpi head, as wide as possible, at most three dots per module.

    Each bar is a tenth of a dot narrower on both sides: a head (and a rasteriser) inks every dot that a bar touches,
    and would otherwise make every bar one dot too wide.
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
    matrix = qr_modules(code.value)
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
    # Whole numbers of modules as PDF operators: reportlab's own rectangles take as long as the rest of the slip.
    canvas.addLiteral(" ".join([*boxes, "f"]))
    canvas.restoreState()
