# SPDX-License-Identifier: Apache-2.0
"""The numbers in trouble as JSON, with which each open page keeps its navigation current."""

from workers.flower.page import Page
from workers.flower.trouble import counted


class TroubleData(Page):
    """`{"slips": "3", "messages": "0"}`, as the page shows them; `null` while the database is unavailable."""

    async def get(self) -> None:
        """Respond with the count."""
        trouble = await self.resources.trouble.latest()
        self.write(
            {
                "slips": None if trouble is None else counted(trouble.slips),
                "messages": None if trouble is None else counted(trouble.messages),
            }
        )
