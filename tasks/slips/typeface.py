# SPDX-License-Identifier: Apache-2.0
"""The embedded typeface: the text that it can print, the measure of text, and slips composed with it."""

import unicodedata
from functools import cache, lru_cache
from importlib.resources import as_file, files

from reportlab import rl_config
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

from schemas.print_jobs import Address, SlipContent
from tasks.slips.bidi import can_print, shape
from tasks.slips.elements import Slip
from tasks.slips.layout import bars_fit, compose
from tasks.slips.media import MEDIA
from tasks.slips.symbologies import is_encodable

REGULAR, BOLD = "DejaVuSans", "DejaVuSans-Bold"

MISSING = "[…]"
"""Replaces a run of characters that the font lacks, so that staff see the gap and no black box."""


@cache
def _fonts() -> tuple[TTFont, TTFont]:
    """Load and register the fonts once per process."""
    # ASCII85 is for seven-bit channels, and would take a fifth of the time of a slip.
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
def _width_at_one_point(text: str, bold: bool) -> float:
    _fonts()
    return float(pdfmetrics.stringWidth(text, BOLD if bold else REGULAR, 1) / mm)


def measure(text: str, size: float, bold: bool) -> float:
    """Width of `text` in millimetres at `size` points."""
    return _width_at_one_point(text, bold) * size


@lru_cache(maxsize=4096)
def printable(text: str) -> str:
    """`text` as the fonts can print it.

    Characters are composed (NFC), Arabic letters take their contextual forms. A run that the fonts lack, for example
    Chinese, becomes `[…]`. Control and format characters are removed.
    """
    shown: list[str] = []
    known = _glyphs()
    for char in shape(unicodedata.normalize("NFC", text)):
        kind = unicodedata.category(char)
        if char.isspace():
            shown.append(" ")
        elif kind in {"Cc", "Cf", "Cs"}:
            continue
        elif ord(char) in known and kind != "Co" and can_print(char):
            shown.append(char)
        else:
            tail = "".join(shown).rstrip()
            shown = [tail] if tail.endswith(MISSING) else [*shown, MISSING]
    return " ".join("".join(shown).split())


def unprintable(content: SlipContent, media: str = "label-4x6") -> tuple[str, ...]:
    """The parts of a slip (`title`, `return address`, ...) that lack characters, for a notice to staff.

    The barcode is one of them when it is printed without bars.
    """
    parts = {
        "delivery code": content.delivery_code or "",
        "return address": " ".join((content.return_to.name, *content.return_to.lines)),
        "sender": " ".join((content.sent_from.name, *content.sent_from.lines, content.sent_from_code or "")),
        "title": content.title,
        "author": content.author or "",
        "request": content.external_id,
        "damage note": content.damage_note or "",
        "barcode": content.barcode,
    }
    lacking = [part for part, text in parts.items() if MISSING in printable(text) and MISSING not in text]
    without_bars = not bars_fit(content.barcode, MEDIA[media])
    return tuple([*lacking, "barcode"] if without_bars and "barcode" not in lacking else lacking)


def compose_slip(content: SlipContent, media: str) -> Slip:
    """Lay out the printable `content` on the medium named `media`. Raises `KeyError` for an unknown medium."""
    return compose(_printable_content(content), measure, MEDIA[media])


def _printable_content(content: SlipContent) -> SlipContent:
    """The content with every text printable. A barcode that is printed as bars stays unchanged."""

    def printable_address(address: Address) -> Address:
        return Address(name=printable(address.name), lines=tuple(printable(line) for line in address.lines))

    return content.model_copy(
        update={
            "delivery_code": printable(content.delivery_code) if content.delivery_code else None,
            "return_to": printable_address(content.return_to),
            "sent_from": printable_address(content.sent_from),
            "sent_from_code": printable(content.sent_from_code) if content.sent_from_code else None,
            "title": printable(content.title),
            "author": printable(content.author) if content.author else None,
            "external_id": printable(content.external_id),
            "barcode": content.barcode if is_encodable(content.barcode) else printable(content.barcode),
            "damage_note": printable(content.damage_note) if content.damage_note else None,
        }
    )
