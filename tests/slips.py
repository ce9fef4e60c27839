# SPDX-License-Identifier: Apache-2.0
"""Contents of slips: a plain one, the fullest one, and arbitrary ones."""

import re
from datetime import date
from pathlib import Path
from uuid import UUID

from hypothesis import strategies as st

from schemas.print_jobs import Address, SlipContent
from schemas.slip_codes import parse_slip_code


def content(**fields):
    """A plain slip with the given fields replaced."""
    return SlipContent(
        **{
            "job_id": UUID("01a20a85-0c89-7e6f-9d55-be5c2b392977"),
            "delivery_code": "RUL",
            "return_to": Address(name="Riverside University Library", lines=("9 River Road", "Riverside")),
            "sent_from": Address(name="Our Public Library", lines=("Main Library", "1 Home Street")),
            "title": "Crime and Punishment",
            "author": "Fyodor Dostoevsky",
            "external_id": "BR-2026-00017",
            "barcode": "31000000170",
            "returned_on": date(2026, 11, 23),
            **fields,
        }
    )


WIDE = st.characters(codec="utf-8")
texts = st.text(WIDE, max_size=300)
addresses = st.builds(
    Address, name=st.text(WIDE, min_size=1, max_size=200), lines=st.lists(st.text(WIDE, max_size=100), max_size=6)
)
ascii_texts = st.characters(min_codepoint=33, max_codepoint=126)
contents = st.builds(
    content,
    title=texts,
    author=st.none() | texts,
    return_to=addresses,
    sent_from=addresses,
    delivery_code=st.none() | st.text(ascii_texts, min_size=1, max_size=40),
    external_id=st.text(ascii_texts, min_size=1, max_size=100),
    barcode=st.text(ascii_texts, min_size=1, max_size=64) | st.text(WIDE, min_size=1, max_size=64),
    urgent=st.booleans(),
    copy_number=st.integers(1, 12),
    item_of=st.none() | st.just((2, 3)),
    damage_note=st.none() | texts,
    sent_from_code=st.none() | st.text(ascii_texts, min_size=1, max_size=40),
)
FULL = content(
    title="W" * 1000, author="W" * 500, return_to=Address(name="W" * 200, lines=("W" * 200,) * 6),
    sent_from=Address(name="W" * 200, lines=("W" * 200,) * 6), delivery_code="W" * 40, external_id="W" * 100,
    barcode="W" * 64, urgent=True, copy_number=12, item_of=(2, 3), damage_note="W" * 500, sent_from_code="W" * 40,
)  # fmt: skip


def slip_id(file: str | Path) -> str:
    """The id of the print job of a slip's file, with `-copy2` of a copy."""
    found = re.fullmatch(r"[A-Za-z0-9_]{1,40}-(BD[A-Z]{32})(-copy[0-9]+)?\.pdf", Path(file).name)
    assert found is not None, file
    return f"{parse_slip_code(found[1])}{found[2] or ''}"
