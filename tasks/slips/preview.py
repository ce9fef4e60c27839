# SPDX-License-Identifier: Apache-2.0
"""Render a slip as a picture for the screen, from the layout that its printer gets. Pure."""

import io

from schemas.print_jobs import SlipContent
from tasks.slips.typeface import compose_slip
from tasks.slips.zpl import rasterize


def render_preview(content: SlipContent, media: str) -> bytes:
    """A PNG of the slip at 203 dots per inch, black and white. Raises `KeyError` for an unknown medium."""
    output = io.BytesIO()
    rasterize(compose_slip(content, media)).save(output, format="PNG", optimize=True)
    return output.getvalue()
