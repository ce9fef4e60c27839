# SPDX-License-Identifier: Apache-2.0
"""The picture of a slip, as its printer gets it."""

from typing import Final

import tornado.web

from tasks.printing import queries
from tasks.slips.media import MEDIA
from tasks.slips.preview import render_preview
from workers.flower.page import Page
from workers.flower.prints import parse_id

DEFAULT_MEDIUM: Final = "label-4x6"
"""Medium of a slip without a printer."""


class SlipPreview(Page):
    """A PNG of one slip, rendered from the stored text. A slip has no field for a patron."""

    async def get(self, slip: str) -> None:
        """Respond with the picture."""
        job_id = parse_id(slip)
        found = await self.query(lambda connection: queries.slip_content(connection, job_id))
        if found is None:
            raise tornado.web.HTTPError(404, "There is no such slip.")
        content, media = found
        picture = await self.application.io_loop.run_in_executor(
            self.application.executor, render_preview, content, media if media in MEDIA else DEFAULT_MEDIUM
        )
        self.set_header("Content-Type", "image/png")
        self.write(picture)
