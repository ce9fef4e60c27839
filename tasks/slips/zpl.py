# SPDX-License-Identifier: Apache-2.0
"""Render a slip as a label in ZPL II, for heads of 203 dots per inch (8 per millimetre). Pure; same slip, same bytes.

The whole label is one picture (`^GFA`), drawn from the same layout and fonts as the PDF. The fonts of label printers
differ from model to model and lack Greek, Cyrillic and most accents. With `^A0` the printer would print boxes in place
of letters, and bookdrop would not detect it. Bars and modules are drawn dot by dot, as sharp as the printer's own. The
picture is encoded as hexadecimal digits with ZPL's run-length compression, which every ZPL II printer supports; `Z64`
is shorter and requires newer firmware.
"""

import re
from contextlib import ExitStack
from functools import cache, lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from schemas.print_jobs import SlipContent
from tasks.slips.bidi import visual_order
from tasks.slips.elements import CAP_HEIGHT, POINT_MM, Code128, QrCode, Slip, Text
from tasks.slips.media import Medium
from tasks.slips.symbologies import DOT_MM, bars, dots_per_module, qr_modules
from tasks.slips.typeface import BOLD, REGULAR, compose_slip, measure

WHITE, BLACK = 1, 0

_RULE_DOTS: Final = 2
_RUN: Final = re.compile(r"(.)\1*")
_FONT_FILES: Final = ExitStack()
"""Open for the lifetime of the process: a font is read when a size is first used."""


class UnsupportedMediumError(ValueError):
    """A label printer cannot have this medium."""


def render_zpl(content: SlipContent, media: str = "label-4x6", *, job_name: str = "") -> bytes:
    """Render `content` on the medium named `media`. A ZPL comment (`^FX`) contains `job_name`.

    Raises `KeyError` for an unknown medium, `UnsupportedMediumError` for one that a label printer cannot have.
    """
    slip = compose_slip(content, media)
    if not slip.medium.is_label:
        raise UnsupportedMediumError(f"{media} is not a medium of a label printer")
    picture = rasterize(slip)
    per_row = (picture.width + 7) // 8
    total = per_row * picture.height
    lines = (
        "^XA^CI28",
        f"^FX {re.sub(r'[^A-Za-z0-9._-]', '_', job_name)}",
        f"^PW{picture.width}",
        f"^LL{picture.height}",
        "^LH0,0",
        f"^FO0,0^GFA,{total},{total},{per_row},{_graphic(picture, per_row)}^FS",
        "^PQ1",
        "^XZ",
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _dots(millimetres: float) -> int:
    return round(millimetres / DOT_MM)


def rasterize(slip: Slip) -> Image.Image:
    """The slip as a picture of black and white dots."""
    medium = slip.medium
    picture = Image.new("1", (int(medium.width / DOT_MM + 0.01), int(medium.height / DOT_MM + 0.01)), WHITE)
    pen = ImageDraw.Draw(picture)
    for text in slip.texts:
        _draw_text(pen, text, medium)
    left, right = _dots(medium.margin), _dots(medium.width - medium.margin)
    for rule in slip.rules:
        top = _dots(rule.y)
        pen.rectangle((left, top, right - 1, top + _RULE_DOTS - 1), BLACK)
    if slip.barcode is not None:
        _draw_bars(pen, slip.barcode)
    _draw_qr(pen, slip.qr)
    return picture


def _draw_text(pen: ImageDraw.ImageDraw, text: Text, medium: Medium) -> None:
    """Draw each letter at its place in the layout: at the resolution of the head, the widths of a font differ."""
    x, ink = text.x, BLACK
    if text.inverted:
        high = text.size * POINT_MM
        top, bottom = _dots(text.y - high * (CAP_HEIGHT + 0.25)), _dots(text.y + high * 0.25)
        pen.rectangle((_dots(medium.margin), top, _dots(medium.width - medium.margin) - 1, bottom - 1), BLACK)
        x, ink = x + 1, WHITE
    font = _font(BOLD if text.bold else REGULAR, text.size)
    for letter in visual_order(text.string):
        if letter != " ":
            pen.text((_dots(x), _dots(text.y)), letter, fill=ink, font=font, anchor="ls")
        x += measure(letter, text.size, text.bold)


def _draw_bars(pen: ImageDraw.ImageDraw, code: Code128) -> None:
    module = dots_per_module(code.value, code.width)
    at, top, bottom = _dots(code.x), _dots(code.y), _dots(code.y + code.height)
    for is_bar, width in bars(code.value):
        if is_bar:
            pen.rectangle((at, top, at + width * module - 1, bottom - 1), BLACK)
        at += width * module


def _draw_qr(pen: ImageDraw.ImageDraw, code: QrCode) -> None:
    rows = qr_modules(code.value)
    side = code.side / len(rows)
    for row, line in enumerate(rows):
        top, bottom = _dots(code.y + row * side), _dots(code.y + (row + 1) * side)
        for column, dark in enumerate(line):
            if dark:
                left, right = _dots(code.x + column * side), _dots(code.x + (column + 1) * side)
                pen.rectangle((left, top, right - 1, bottom - 1), BLACK)


@cache
def _font_file(name: str) -> Path:
    return _FONT_FILES.enter_context(as_file(files("tasks.slips") / "fonts" / f"{name}.ttf"))


@lru_cache(maxsize=64)
def _font(name: str, points: float) -> ImageFont.FreeTypeFont:
    size = points * POINT_MM / DOT_MM
    return ImageFont.truetype(_font_file(name), size, layout_engine=ImageFont.Layout.BASIC)


def _graphic(picture: Image.Image, per_row: int) -> str:
    """The picture's rows as compressed hexadecimal digits.

    A letter before a digit repeats it, `,` and `!` fill the row, `:` repeats the previous row. Source: ZPL II
    programming guide, "Alternative Data Compression Scheme for ~DG and ~DB Commands".
    """
    # Pillow's 1 is white, the head's 1 is ink. The bits that fill the last byte of a row are white.
    inverted = bytes(byte ^ 0xFF for byte in picture.tobytes())
    spare = per_row * 8 - picture.width
    rows, before = [], ""
    for start in range(0, len(inverted), per_row):
        row = bytearray(inverted[start : start + per_row])
        row[-1] &= 0xFF << spare & 0xFF
        digits = row.hex().upper()
        rows.append(":" if digits == before else _compressed(digits))
        before = digits
    return "".join(rows)


def _compressed(digits: str) -> str:
    filled = digits.rstrip("0")
    end = "," if len(filled) < len(digits) else ""
    if not end and digits.endswith("F"):
        filled, end = digits.rstrip("F"), "!"
    return _RUN.sub(_compressed_run, filled) + end


def _compressed_run(found: re.Match[str]) -> str:
    length, digit = len(found[0]), found[1]
    if length == 1:
        return digit
    hundreds, rest = divmod(length, 400)
    twenties, ones = divmod(rest, 20)
    tens = chr(ord("f") + twenties) if twenties else ""
    return "z" * hundreds + tens + (chr(ord("F") + ones) if ones else "") + digit
