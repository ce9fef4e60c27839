# SPDX-License-Identifier: Apache-2.0
"""The pages of print jobs: the list by branch and printer, one slip with its actions, and Retry all of a printer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import structlog
import tornado.web
from sqlalchemy import Connection

from schemas.print_jobs import IN_HAND
from schemas.print_jobs import PrintState as State
from tasks.operator import MAX_REASON_LENGTH
from tasks.printing import actions, queries
from tasks.printing.actions import RefusedActionError
from tasks.printing.queries import UNCONFIRMED, SlipFilter
from workers.flower.page import Page
from workers.flower.slip_actions import SLIP_ACTIONS, Name, available_actions, perform

log = structlog.get_logger()

MAX_SHOWN: Final = 200
MAX_COUNTED: Final = 1000
"""Limit of the counts on the tabs. Above it the page shows `1,000+`."""
MAX_EVENTS_SHOWN: Final = 5

FILTERS: Final[Mapping[str, tuple[str, tuple[State, ...]]]] = {
    "trouble": ("In trouble", (State.FAILED_SAFE, State.HELD, State.UNKNOWN)),
    "failed": ("Failed", (State.FAILED_SAFE,)),
    "held": ("Held", (State.HELD,)),
    "unknown": ("Unknown", (State.UNKNOWN,)),
    "unconfirmed": ("Unconfirmed", UNCONFIRMED),
    "expired": ("Expired", (State.EXPIRED,)),
    "waiting": ("On their way", (State.REQUESTED, *sorted(IN_HAND))),
}
"""Value of `show` in the address to the label of the tab and the states."""

WITH_BLOCKED: Final = frozenset({"trouble", "held"})
"""Filters that include jobs that wait without an attempt because their printer is on hold or unavailable."""

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
        chosen = self.get_query_argument("show", "trouble")
        if chosen not in FILTERS:
            raise tornado.web.HTTPError(404, "There is no such list of slips.")
        wanted = SlipFilter(
            states=FILTERS[chosen][1],
            blocked=chosen in WITH_BLOCKED,
            branch=self.get_query_argument("branch", "") or None,
            printer=self.get_query_argument("printer", "") or None,
            limit=MAX_SHOWN,
        )
        # Before the query: the database has what these events report.
        events = list(self.application.events.slips)[:MAX_EVENTS_SHOWN]
        print_queues, counts, printers = await self.query(lambda connection: self._read(connection, wanted))
        self.render_page(
            "prints.html",
            chosen=chosen,
            filters={name: (label, counts[name]) for name, (label, _) in FILTERS.items()},
            wanted=wanted,
            print_queues=print_queues,
            shown=sum(len(print_queue.slips) for print_queue in print_queues),
            branches=sorted({printer["branch"] for printer in printers}),
            printers=printers,
            counted=lambda number: f"{MAX_COUNTED:,}+" if number > MAX_COUNTED else f"{number:,}",
            actions_for=_actions_for,
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
        await self._show(_id(slip), self.get_query_argument("do", ""), self.get_query_argument("back", ""))

    @tornado.web.authenticated
    async def post(self, slip: str) -> None:
        """Perform an action."""
        job_id = _id(slip)
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
        self.redirect(_list_address(self, back))

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
            list_address=_list_address(self, back),
        )


class RetryAllPage(Page):
    """Retry of all waiting slips of one printer, for example after its repair."""

    @tornado.web.authenticated
    async def get(self, printer: str) -> None:
        """Show the form."""
        await self._show(printer, self.get_query_argument("back", ""))

    @tornado.web.authenticated
    async def post(self, printer: str) -> None:
        """Dispatch all of them, the oldest first."""
        reason, back = self.text_field("reason", MAX_REASON_LENGTH), self.get_body_argument("back", "")
        if not reason:
            self.set_status(400)
            await self._show(printer, back, error=REASON_REQUIRED)
            return
        done = await self.execute(partial(actions.retry_all, self.operator(reason), printer=printer))
        log.info("slips_retried", printer=printer, count=len(done))
        self.flash(f"Retried for printer {printer}: {len(done)}." if done else "No slip waits for this printer.")
        self.redirect(_list_address(self, back))

    async def _show(self, printer: str, back: str, *, error: str | None = None) -> None:
        printers = await self.query(queries.printers)
        found = next((status for status in printers if status["printer"] == printer), None)
        if found is None:
            raise tornado.web.HTTPError(404, "There is no such printer.")
        self.render_page(
            "retry_all.html", printer=found, error=error, back=back, list_address=_list_address(self, back)
        )


def _actions_for(slip: Mapping[str, Any]) -> Any:
    return available_actions(State(slip["state"]), voided=slip["voided"] is not None)


def _id(slip: str) -> UUID:
    try:
        return UUID(slip)
    except ValueError:
        raise tornado.web.HTTPError(404, "There is no such slip.") from None


def _list_address(page: Page, query: str) -> str:
    """The address of the list with the filters in `query`. Other parameters are dropped, so it cannot lead elsewhere."""
    filters = urlencode([(name, value) for name, value in parse_qsl(query) if name in {"show", "branch", "printer"}])
    return str(page.reverse_url("prints")) + (f"?{filters}" if filters else "")
