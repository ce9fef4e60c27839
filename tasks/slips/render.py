# SPDX-License-Identifier: Apache-2.0
"""Render a slip in the language of its printer. Pure."""

from typing import Literal

from schemas.print_jobs import SlipContent
from tasks.slips.pdf import render_pdf
from tasks.slips.zpl import render_zpl


def render_slip(content: SlipContent, media: str, language: Literal["pdf", "zpl"], *, job_name: str) -> bytes:
    """The document of a slip on the medium named `media`. Raises `KeyError` for an unknown medium."""
    match language:
        case "pdf":
            return render_pdf(content, media)
        case "zpl":
            return render_zpl(content, media, job_name=job_name)
