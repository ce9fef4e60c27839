# SPDX-License-Identifier: Apache-2.0
"""Slips as pictures: what a head of 203 dots an inch puts on paper, and what a decoder reads there."""

import io
import math
import re

import pypdfium2
import zxingcpp
from PIL import Image

DPI = 203


def page(pdf):
    """The one page of a PDF."""
    document = pypdfium2.PdfDocument(pdf)
    assert len(document) == 1
    return document[0]


def picture_of(pdf):
    """The page in dots. A page that is no whole number of dots is cut, not stretched, as printers do."""
    document = pypdfium2.PdfDocument(pdf)
    width, height = document[0].get_size()
    right, down = (math.floor(size * DPI / 72 + 0.01) * 72 / DPI for size in (width, height))
    document[0].set_mediabox(0, height - down, right, height)
    cut = io.BytesIO()
    document.save(cut)
    return page(cut.getvalue()).render(scale=(DPI - 1e-4) / 72).to_pil()


def codes_on(picture):
    """What a decoder reads, sorted."""
    return sorted(code.text for code in zxingcpp.read_barcodes(picture))


def label_of(zpl):
    """The picture that a label is printed as: a reader of ^GFA on its own (ZPL II programming guide)."""
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
