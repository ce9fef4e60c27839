# SPDX-License-Identifier: Apache-2.0
"""Slips as images: rendered at 203 dots per inch, the resolution of a label printer, and read by a barcode decoder."""

import io
import math
import re

import pypdfium2
import zxingcpp
from PIL import Image

DPI = 203


def only_page(pdf):
    """The page of a PDF of one page."""
    document = pypdfium2.PdfDocument(pdf)
    assert len(document) == 1
    return document[0]


def image_of_pdf(pdf):
    """The page in dots. A page that is not a whole number of dots is cropped, not stretched, as printers do."""
    document = pypdfium2.PdfDocument(pdf)
    width, height = document[0].get_size()
    right, down = (math.floor(size * DPI / 72 + 0.01) * 72 / DPI for size in (width, height))
    document[0].set_mediabox(0, height - down, right, height)
    cropped = io.BytesIO()
    document.save(cropped)
    return only_page(cropped.getvalue()).render(scale=(DPI - 1e-4) / 72).to_pil()


def decode_barcodes(image):
    """The texts of all barcodes in an image, sorted."""
    return sorted(code.text for code in zxingcpp.read_barcodes(image))


def image_of_zpl(zpl):
    """The image that a label prints: an independent decoder of ^GFA (ZPL II programming guide)."""
    found = re.fullmatch(
        rb"\^XA\^CI28\n\^FX ([^\n^~]*)\n\^PW(\d+)\n\^LL(\d+)\n\^LH0,0\n\^FO0,0\^GFA,(\d+),(\d+),(\d+),([^^~]*)\^FS\n"
        rb"\^PQ1\n\^XZ\n",
        zpl,
    )
    assert found is not None, zpl[:200]
    width, height, total, same_total, per_row = (int(number) for number in found.groups()[1:6])
    assert total == same_total == per_row * height
    rows: list[str] = []
    row, times = "", 0
    for char in found[7].decode("ascii"):
        match char:
            case "," | "!":
                row = row.ljust(per_row * 2, "0" if char == "," else "F")
            case ":":
                assert not row
                row = rows[-1]
            case _ if "G" <= char <= "Y":
                times += ord(char) - ord("G") + 1
            case _ if "g" <= char <= "z":
                times += 20 * (ord(char) - ord("g") + 1)
            case _:
                row += char * (times or 1)
                times = 0
        assert len(row) <= per_row * 2
        if len(row) == per_row * 2:
            rows.append(row)
            row = ""
    assert not row
    assert len(rows) == height
    data = bytes(~byte & 0xFF for byte in bytes.fromhex("".join(rows)))
    return Image.frombytes("1", (per_row * 8, height), data).crop((0, 0, width, height)).convert("L")
