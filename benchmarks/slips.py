# SPDX-License-Identifier: Apache-2.0
"""Rendering time and size of a slip, for several contents.

Each slip has a different title, request and code, as in use, so only the fonts come from a cache.

    python benchmarks/slips.py --slips 500
"""

import argparse
import time
from collections.abc import Callable
from datetime import date

from figures import Figures, add, options, progress, run
from uuid6 import uuid7

from schemas.print_jobs import Address, SlipContent
from tasks.slips.media import MEDIA
from tasks.slips.pdf import render_pdf

WARM_UP = 20


def usual(number: int) -> SlipContent:
    """The content of most slips."""
    return SlipContent(
        job_id=uuid7(),
        delivery_code="RUL",
        return_to=Address(name="Riverside University Library", lines=("9 River Road", "Riverside")),
        sent_from=Address(name="Main Library", lines=("Our Public Library", "1 Home Street")),
        title=f"The book number {number}",
        author="An Author",
        external_id=f"BR-{number:06d}",
        barcode=f"3100{number:08d}",
        returned_on=date(2026, 1, 2),
    )


def long(number: int) -> SlipContent:
    """A title, a note and an address that fill the available space."""
    lines = tuple(f"Line {line} of a long address, building {number}" for line in range(1, 7))
    return usual(number).model_copy(
        update={
            "return_to": Address(name="The Library of a University with a Very Long Name", lines=lines),
            "title": f"A title of many words, volume {number}, " * 8,
            "damage_note": f"Came with a stain on page {number} and a loose cover. " * 3,
            "urgent": True,
            "item_of": (1, 3),
            "copy_number": 2,
        }
    )


def of_other_scripts(number: int) -> SlipContent:
    """Accented, Greek and Cyrillic letters, and some that the fonts do not have."""
    return usual(number).model_copy(
        update={"title": f"Žluťoučký kůň Ω Воина и мир {number} 紅樓夢", "author": "Ñandú Œuvre Łódź"}
    )


CONTENTS: dict[str, Callable[[int], SlipContent]] = {"usual": usual, "long": long, "other scripts": of_other_scripts}


def measure(chosen: argparse.Namespace) -> Figures:
    """Measure all contents in turns, slip by slip."""
    found: Figures = {}
    candidates = {
        f"{name}, {media}": (content, media) for media in chosen.media.split(",") for name, content in CONTENTS.items()
    }
    for content, media in candidates.values():
        for number in range(WARM_UP):
            render_pdf(content(number), media)
    number = WARM_UP
    for turn in range(chosen.rounds):
        for _ in range(chosen.slips):
            number += 1
            for name, (content, media) in candidates.items():
                slip = content(number)
                began = time.perf_counter()
                document = render_pdf(slip, media)
                add(found, name, "slip, ms", [(time.perf_counter() - began) * 1000])
                add(found, name, "size, bytes", [len(document)])
        progress.print(f"round {turn + 1} of {chosen.rounds}: {chosen.slips} slips of each")
    return found


def main() -> None:
    """Measure and report."""
    parser = options(__doc__, __file__)
    parser.add_argument("--slips", type=int, default=200, help="slips in each round, for each content")
    parser.add_argument("--media", default="label-4x6", help=f"media, separated by commas: {', '.join(MEDIA)}")
    run(parser, measure)


if __name__ == "__main__":
    main()
