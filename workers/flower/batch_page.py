# SPDX-License-Identifier: Apache-2.0
"""The page of an action on several slips: first their number and a sample, then the action on exactly these slips."""

from collections.abc import Callable
from typing import Any, Final, cast, get_args
from urllib.parse import urlencode
from uuid import UUID

import structlog
import tornado.web
from sqlalchemy import Connection

from tasks.operator import MAX_REASON_LENGTH
from tasks.printing import batch, queries
from tasks.printing.batch import MAX_SLIPS, BatchAction, BatchResult
from tasks.printing.queries import SlipFilter
from tasks.selection import Selection
from workers.flower.page import Page, selection_changed
from workers.flower.prints import REASON_REQUIRED, list_address, parse_id, search_slips
from workers.flower.slip_actions import BATCH_DESCRIPTIONS, SLIP_ACTIONS
from workers.flower.slip_list import FIELDS, MAX_SEARCH, shown_tab, slip_filter

log = structlog.get_logger()

SAMPLE: Final = 10
"""Slips that the page lists, the oldest."""
MAX_REFUSALS: Final = 5
"""Refusals that the message after the action quotes."""


class BatchPage(Page):
    """Retry, move, cancel or mark several slips: chosen rows, or all that match a filter."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Show the number of all slips that match the address, a sample, and the form."""
        await self._show(self.get_query_argument, [])

    @tornado.web.authenticated
    async def post(self) -> None:
        """Show the form for the chosen rows; with the version of the selection that a page showed, act on it."""
        slips = [parse_id(slip) for slip in self.get_body_arguments("slip")][:MAX_SLIPS]
        expected = self.get_body_argument("expected", "")
        if not expected:
            if not slips:
                self.flash("No slip is chosen: tick the slips first. Nothing was changed.")
                self.redirect(list_address(self, self.get_body_argument("back", "")))
                return
            await self._show(self.get_body_argument, slips)
            return
        await self._act(slips, expected)

    async def _act(self, slips: list[UUID], expected: str) -> None:
        action = self._action(self.get_body_argument)
        reason, to = self.text_field("reason", MAX_REASON_LENGTH), self.text_field("to", 40)
        if not reason:
            await self._show(self.get_body_argument, slips, status=400, error=REASON_REQUIRED)
            return
        operator = self.operator(reason)
        selection = await self.query(self._selecting(action, self.get_body_argument, slips))
        if selection.version != expected:
            error = selection_changed(expected, selection.total, "slips")
            await self._show(self.get_body_argument, slips, status=409, error=error)
            return
        result = await self.execute(lambda context: batch.perform(action, selection.ids, operator, context, to=to))
        log.info("slips_changed", outcome=action, count=len(result.done), left=len(result.refused))
        if not result.done:
            refusal = result.refused[0].message if result.refused else "No slip matches."
            await self._show(self.get_body_argument, slips, status=409, error=f"{refusal} Nothing was changed.")
            return
        self.flash(summary(action, result, selection))
        self.redirect(list_address(self, self.get_body_argument("back", "")))

    def _action(self, argument: Callable[[str, str], str]) -> BatchAction:
        action = argument("do", "")
        if action not in get_args(BatchAction):
            raise tornado.web.HTTPError(400, "There is no such action.")
        return cast("BatchAction", action)

    def _selecting(
        self, action: BatchAction, argument: Callable[[str, str], str], slips: list[UUID]
    ) -> Callable[[Connection], Selection[UUID]]:
        """Return the query for the chosen rows, or for all slips that the filter matches."""
        if slips:
            return lambda connection: batch.select_named(connection, action, slips)
        show, words = self._tab(argument), argument("q", "")[:MAX_SEARCH]
        matching = slip_filter(show, argument("branch", ""), argument("printer", ""))

        def select(connection: Connection) -> Selection[UUID]:
            return batch.select_matching(connection, action, search_slips(connection, matching, words))

        return select

    def _tab(self, argument: Callable[[str, str], str]) -> str:
        try:
            return shown_tab(argument)
        except KeyError:
            raise tornado.web.HTTPError(404, "There is no such list of slips.") from None

    async def _show(
        self, argument: Callable[[str, str], str], slips: list[UUID], *, status: int = 200, error: str | None = None
    ) -> None:
        action = self._action(argument)
        selecting = self._selecting(action, argument, slips)

        def read(connection: Connection) -> tuple[Selection[UUID], list[dict[str, Any]], list[dict[str, Any]]]:
            selection = selecting(connection)
            shown = SlipFilter(ids=selection.ids[:SAMPLE], limit=SAMPLE)
            return selection, queries.slips(connection, shown), queries.printers(connection)

        selection, sample, printers = await self.query(read)
        filters = {name: argument(name, "") for name in FIELDS if argument(name, "")}
        back = argument("back", "")
        self.set_status(status)
        self.render_page(
            "batch.html",
            action=SLIP_ACTIONS[action],
            description=BATCH_DESCRIPTIONS[action],
            selection=selection,
            sample=sample,
            chosen=slips,
            left_out=len(slips) - selection.total if slips else 0,
            filters={} if slips else filters,
            printers=printers,
            from_branch=sample[0]["branch"] if sample else "",
            to=argument("to", ""),
            reason=self.text_field("reason", MAX_REASON_LENGTH),
            error=error,
            back=back or ("" if slips else urlencode(filters)),
            list_address=list_address(self, back),
        )


def summary(action: BatchAction, result: BatchResult, selection: Selection[UUID]) -> str:
    """The message after the action: the numbers of changed, refused and left slips, with the reasons of refusals."""
    text = f"{SLIP_ACTIONS[action].button}: {len(result.done)} of {selection.total} slips."
    if result.refused:
        reasons = sorted({refusal.message for refusal in result.refused})[:MAX_REFUSALS]
        text += f" Not changed: {len(result.refused)}. {' '.join(reasons)}"
    left = selection.left
    return text + (f" {left} further slips match: repeat the action for them." if left else "")
