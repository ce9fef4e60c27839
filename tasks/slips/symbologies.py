# SPDX-License-Identifier: Apache-2.0
"""The two codes of a slip as modules: Code 128 (ISO/IEC 15417) and QR (ISO/IEC 18004). Pure."""

from functools import lru_cache
from typing import Final

import segno
from reportlab.graphics.barcode.code128 import Code128 as Bars

DOT_MM: Final = 25.4 / 203
"""A dot of the usual label printer, in millimetres."""

LARGEST_MODULE: Final = 3
"""Dots; wider bars are not easier to read."""


def is_encodable(barcode: str) -> bool:
    """True when Code 128 can encode `barcode`: printable ASCII."""
    return bool(barcode) and all(" " <= char <= "~" for char in barcode)


@lru_cache(maxsize=1024)
def bars(value: str) -> tuple[tuple[bool, int], ...]:
    """Bars (true) and spaces of `value` from left to right, with their widths in modules."""
    encoder = Bars(value, quiet=False)
    encoder.validate()
    encoder.encode()
    encoder.decompose()
    return tuple((char.isupper(), ord(char.lower()) - ord("a") + 1) for char in encoder.decomposed)


def dots_per_module(value: str, width: float) -> int:
    """Width of a module in dots of 203 dpi, so that `value` fits into `width` mm; 0 when it does not fit."""
    modules = sum(count for _, count in bars(value))
    return min(LARGEST_MODULE, int(width / modules / DOT_MM))


@lru_cache(maxsize=1024)
def qr_modules(value: str) -> tuple[bytes, ...]:
    """Rows of the QR code of `value`; 1 is dark."""
    # A fixed mask: selecting the best of eight takes a third of the time of the whole slip.
    return tuple(bytes(row) for row in segno.make(value, error="m", mask=2, micro=False).matrix)
