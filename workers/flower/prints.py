# SPDX-License-Identifier: Apache-2.0
"""The page Prints: slips in trouble by branch and printer, and what a person decides about each."""

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
from tasks.operator import MAX_REASON_LENGTH, Operator
from tasks.printing import actions, queries
from tasks.printing.actions import RefusedActionError
from tasks.printing.queries import UNSEEN, Wanted
from workers.flower.page import Page
from workers.flower.slip_actions import DECISIONS, Name, decide, open_to

log = structlog.get_logger()

AT_MOST: Final = 200
COUNTED: Final = 1000
"""Up to here slips are counted; beyond it is said that there are more."""
LIVE_SHOWN: Final = 5

KINDS: Final[Mapping[str, tuple[str, tuple[State, ...]]]] = {
    "trouble": ("In trouble", (State.FAILED_SAFE, State.HELD, State.UNKNOWN)),
    "failed": ("Failed", (State.FAILED_SAFE,)),
    "held": ("Held", (State.HELD,)),
    "unknown": ("Unknown", (State.UNKNOWN,)),
    "unconfirmed": ("Unconfirmed", UNSEEN),
    "expired": ("Expired", (State.EXPIRED,)),
    "waiting": ("On their way", (State.REQUESTED, *sorted(IN_HAND))),
}
"""What can be shown: by the word in the address, the words on the tab, and the states."""

BLOCKED: Final = frozenset({"trouble", "held"})
"""Where those are shown too that wait untried behind others, because their printer is on hold or away."""

NO_REASON: Final = "Say why: it stands in the history of the request."


@dataclass(frozen=True)
class Line:
    """The slips of one printer, and how it does."""

    branch: str
    printer: str | None
    slips: list[dict[str, Any]]
    of_printer: dict[str, Any] | None


class PrintsPage(Page):
    """The list."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Show the slips that the address asks for."""
        kind = self.get_query_argument("show", "trouble")
        if kind not in KINDS:
            raise tornado.web.HTTPError(404, "There is no such list of slips.")
        wanted = Wanted(
            states=KINDS[kind][1],
            blocked=kind in BLOCKED,
            branch=self.get_query_argument("branch", "") or None,
            printer=self.get_query_argument("printer", "") or None,
            limit=AT_MOST,
        )
        live = list(self.application.events.slips)[:LIVE_SHOWN]  # before the rest: what it tells of is there by then
        lines, counts, printers = await self.ask(lambda connection: self._look(connection, wanted))
        self.show(
            "prints.html",
            kind=kind,
            kinds={name: (words, counts[name]) for name, (words, _) in KINDS.items()},
            wanted=wanted,
            lines=lines,
            shown=sum(len(line.slips) for line in lines),
            branches=sorted({each["branch"] for each in printers}),
            printers=printers,
            counted=lambda number: f"{COUNTED:,}+" if number > COUNTED else f"{number:,}",
            open_to=_open_to,
            live=live,
        )

    def _look(self, connection: Connection, wanted: Wanted) -> tuple[list[Line], dict[str, int], list[dict[str, Any]]]:
        printers = queries.printers(connection, self.parts.here.now())
        by_code = {each["printer"]: each for each in printers}

        def place(slip: dict[str, Any]) -> tuple[str, str]:
            return slip["branch"], slip["printer"] or ""

        found = sorted(queries.slips(connection, wanted), key=place)  # stays oldest first within a line
        lines = [
            Line(branch, printer or None, list(slips), by_code.get(printer))
            for (branch, printer), slips in groupby(found, key=place)
        ]
        counts = {
            name: queries.count(connection, replace(wanted, states=states, blocked=name in BLOCKED, limit=COUNTED + 1))
            for name, (_, states) in KINDS.items()
        }
        return lines, counts, printers


class SlipPage(Page):
    """All of one slip: where it is, every try, who decided what; and the form of a decision."""

    @tornado.web.authenticated
    async def get(self, slip: str) -> None:
        """Show it; with `do` in the address, the form of that decision."""
        await self._show(_id(slip), self.get_query_argument("do", ""), self.get_query_argument("back", ""))

    @tornado.web.authenticated
    async def post(self, slip: str) -> None:
        """Decide."""
        actor, job_id = self.actor(), _id(slip)
        what, back = self.get_body_argument("do", ""), self.get_body_argument("back", "")
        reason, to = self.text("reason", MAX_REASON_LENGTH), self.text("to", 40)
        if what not in DECISIONS:
            raise tornado.web.HTTPError(400, "There is no such decision.")
        if not reason:
            await self._show(job_id, what, back, status=400, trouble=NO_REASON)
            return
        try:
            done = await self.decide(
                lambda here: decide(cast("Name", what), job_id, Operator(actor, reason), here, to=to)
            )
        except RefusedActionError as error:
            await self._show(job_id, "", back, status=409, trouble=f"{error} Nothing was changed.")
            return
        log.info("slip_decided", job_id=slip, outcome=what)
        self.say(f"{done.message}.")
        self.redirect(_back_to(self, back))

    async def _show(self, slip: UUID, do: str, back: str, *, status: int = 200, trouble: str | None = None) -> None:
        story, printers = await self.ask(
            lambda connection: (
                queries.slip(connection, slip),
                queries.printers(connection, self.parts.here.now()),
            )
        )
        if story is None:
            raise tornado.web.HTTPError(404, "There is no such slip.")
        can = _open_to(story)
        self.set_status(status)
        self.show(
            "slip.html",
            slip=story,
            can=can,
            chosen=next((each for each in can if each.name == do), None),
            others=[each for each in printers if each["printer"] != story["printer"]],
            reason=self.text("reason", MAX_REASON_LENGTH) if status != 200 else "",  # noqa: PLR2004 - HTTP's own
            trouble=trouble,
            back=back,
            back_to=_back_to(self, back),
        )


class RetryAllPage(Page):
    """Retry for all slips of a printer that wait: whoever mended it wants its whole line."""

    @tornado.web.authenticated
    async def get(self, printer: str) -> None:
        """Show the form."""
        await self._show(printer, self.get_query_argument("back", ""))

    @tornado.web.authenticated
    async def post(self, printer: str) -> None:
        """Order all of them, the oldest first."""
        actor = self.actor()
        reason, back = self.text("reason", MAX_REASON_LENGTH), self.get_body_argument("back", "")
        if not reason:
            self.set_status(400)
            await self._show(printer, back, trouble=NO_REASON)
            return
        done = await self.decide(partial(actions.retry_all, Operator(actor, reason), printer=printer))
        log.info("slips_retried", printer=printer, count=len(done))
        self.say(f"Ordered again: {len(done)} for printer {printer}." if done else "No slip waits any more.")
        self.redirect(_back_to(self, back))

    async def _show(self, printer: str, back: str, *, trouble: str | None = None) -> None:
        printers = await self.ask(lambda connection: queries.printers(connection, self.parts.here.now()))
        found = next((each for each in printers if each["printer"] == printer), None)
        if found is None:
            raise tornado.web.HTTPError(404, "There is no such printer.")
        self.show("retry_all.html", printer=found, trouble=trouble, back=back, back_to=_back_to(self, back))


def _open_to(slip: Mapping[str, Any]) -> Any:
    return open_to(State(slip["state"]), voided=slip["voided"] is not None)


def _id(slip: str) -> UUID:
    try:
        return UUID(slip)
    except ValueError:
        raise tornado.web.HTTPError(404, "There is no such slip.") from None


def _back_to(page: Page, query: str) -> str:
    """The list that was left, and no other place."""
    known = urlencode([(name, value) for name, value in parse_qsl(query) if name in {"show", "branch", "printer"}])
    return str(page.reverse_url("prints")) + (f"?{known}" if known else "")
