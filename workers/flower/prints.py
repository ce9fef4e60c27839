# SPDX-License-Identifier: Apache-2.0
"""The pages of print jobs: the list by branch and printer, and one slip with its actions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final, cast, get_args
from uuid import UUID

import structlog
import tornado.web
from sqlalchemy import Connection

from schemas.print_jobs import PrintState as State
from tasks.operator import MAX_REASON_LENGTH
from tasks.printing import queries
from tasks.printing.actions import RefusedActionError
from tasks.printing.batch import BatchAction
from tasks.printing.queries import SlipFilter
from tasks.printing.slip_search import find
from workers.flower.page import Page
from workers.flower.slip_actions import SLIP_ACTIONS, Name, available_actions, perform
from workers.flower.slip_list import FILTERS, MAX_SEARCH, WITH_BLOCKED, list_query, shown_tab, slip_filter
from workers.flower.trouble import MAX_COUNTED, counted

log = structlog.get_logger()

MAX_EVENTS_SHOWN: Final = 5

REASON_REQUIRED: Final = "Enter a reason: the history of the request contains it."


@dataclass(frozen=True)
class PrinterQueue:
    """The print jobs of one printer, and the printer's status."""

    branch: str
    printer: str | None
    slips: list[dict[str, Any]]
    status: dict[str, Any] | None


class PrintsPage(Page):
    """The list of print jobs by branch and printer."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Show the print jobs that the address selects."""
        try:
            chosen = shown_tab(self.get_query_argument)
        except KeyError:
            raise tornado.web.HTTPError(404, "There is no such list of slips.") from None
        words = self.get_query_argument("q", "")[:MAX_SEARCH]
        wanted = slip_filter(chosen, self.get_query_argument("branch", ""), self.get_query_argument("printer", ""))
        # Before the query: the database has what these events report.
        events = list(self.application.events.slips)[:MAX_EVENTS_SHOWN]
        print_queues, counts, printers = await self.query(
            lambda connection: self._read(connection, search_slips(connection, wanted, words))
        )
        self.render_page(
            "prints.html",
            chosen=chosen,
            filters={name: (label, counts[name]) for name, (label, _) in FILTERS.items()},
            wanted=wanted,
            words=words,
            print_queues=print_queues,
            shown=sum(len(print_queue.slips) for print_queue in print_queues),
            branches=sorted({printer["branch"] for printer in printers}),
            printers=printers,
            counted=counted,
            actions_for=_actions_for,
            batch_actions=[SLIP_ACTIONS[name] for name in get_args(BatchAction)],
            events=events,
        )

    def _read(
        self, connection: Connection, wanted: SlipFilter
    ) -> tuple[list[PrinterQueue], dict[str, int], list[dict[str, Any]]]:
        printers = queries.printers(connection)
        by_code = {printer["printer"]: printer for printer in printers}

        def place(slip: dict[str, Any]) -> tuple[str, str]:
            return slip["branch"], slip["printer"] or ""

        found = sorted(queries.slips(connection, wanted), key=place)  # stable: oldest first within a printer
        print_queues = [
            PrinterQueue(branch, printer or None, list(slips), by_code.get(printer))
            for (branch, printer), slips in groupby(found, key=place)
        ]
        counts = {
            name: queries.count(
                connection, replace(wanted, states=states, blocked=name in WITH_BLOCKED, limit=MAX_COUNTED + 1)
            )
            for name, (_, states) in FILTERS.items()
        }
        return print_queues, counts, printers


class SlipPage(Page):
    """One slip: its state, attempts and actions, and the form of an action."""

    @tornado.web.authenticated
    async def get(self, slip: str) -> None:
        """Show the slip; with `do` in the address, also the form of that action."""
        await self._show(parse_id(slip), self.get_query_argument("do", ""), self.get_query_argument("back", ""))

    @tornado.web.authenticated
    async def post(self, slip: str) -> None:
        """Perform an action."""
        job_id = parse_id(slip)
        action, back = self.get_body_argument("do", ""), self.get_body_argument("back", "")
        reason, to = self.text_field("reason", MAX_REASON_LENGTH), self.text_field("to", 40)
        if action not in SLIP_ACTIONS:
            raise tornado.web.HTTPError(400, "There is no such action.")
        if not reason:
            await self._show(job_id, action, back, status=400, error=REASON_REQUIRED)
            return
        operator = self.operator(reason)
        try:
            done = await self.execute(lambda context: perform(cast("Name", action), job_id, operator, context, to=to))
        except RefusedActionError as refusal:
            await self._show(job_id, "", back, status=409, error=f"{refusal} Nothing was changed.")
            return
        log.info("slip_action_performed", job_id=slip, outcome=action)
        self.flash(f"{done.message}.")
        self.redirect(list_address(self, back))

    async def _show(self, job_id: UUID, do: str, back: str, *, status: int = 200, error: str | None = None) -> None:
        slip, printers = await self.query(
            lambda connection: (
                queries.slip(connection, job_id),
                queries.printers(connection),
            )
        )
        if slip is None:
            raise tornado.web.HTTPError(404, "There is no such slip.")
        available = _actions_for(slip)
        self.set_status(status)
        self.render_page(
            "slip.html",
            slip=slip,
            available=available,
            chosen=next((action for action in available if action.name == do), None),
            other_printers=[printer for printer in printers if printer["printer"] != slip["printer"]],
            reason=self.text_field("reason", MAX_REASON_LENGTH) if status != 200 else "",  # noqa: PLR2004 - HTTP status
            error=error,
            back=back,
            list_address=list_address(self, back),
        )


def _actions_for(slip: Mapping[str, Any]) -> Any:
    return available_actions(State(slip["state"]), voided=slip["voided"] is not None)


def parse_id(slip: str) -> UUID:
    """The id of a slip in an address or a form. Raises 404."""
    try:
        return UUID(slip)
    except ValueError:
        raise tornado.web.HTTPError(404, "There is no such slip.") from None


def list_address(page: Page, query: str) -> str:
    """The address of the list with the filters in `query`."""
    filters = list_query(query)
    return str(page.reverse_url("prints")) + (f"?{filters}" if filters else "")


def search_slips(connection: Connection, matching: SlipFilter, words: str) -> SlipFilter:
    """Restrict the filter to the slips that a search finds; an empty search does not restrict it."""
    if not words.strip():
        return matching
    found = find(connection, words)
    return replace(matching, ids=found.slips, requests=found.requests)
