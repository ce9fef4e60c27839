# SPDX-License-Identifier: Apache-2.0
"""The form with which an operator holds or resumes a printer."""

from typing import Any, Final

import structlog
import tornado.web

from tasks.context import Context
from tasks.printing import printer_admin, queries
from tasks.printing.printer_admin import RefusedPrinterError
from workers.flower.page import Page
from workers.flower.prints import list_address

log = structlog.get_logger()

CHANGES: Final = {"hold": printer_admin.hold, "resume": printer_admin.resume}


class PrinterPage(Page):
    """Hold or resume one printer."""

    @tornado.web.authenticated
    async def get(self, printer: str) -> None:
        """Show the effect, and the form."""
        action = self._action(self.get_query_argument("do", ""))
        await self._show(printer, action, self.get_query_argument("back", ""))

    @tornado.web.authenticated
    async def post(self, printer: str) -> None:
        """Hold or resume the printer."""
        action, back = self._action(self.get_body_argument("do", "")), self.get_body_argument("back", "")
        self.require_actor()

        def change(context: Context) -> None:
            with context.unit_of_work() as uow:
                CHANGES[action](uow.session, printer)

        try:
            await self.execute(change)
        except RefusedPrinterError as refusal:
            raise tornado.web.HTTPError(404, str(refusal)) from None
        log.info("printer_changed", printer=printer, outcome=action)
        self.flash(
            f"Printer {printer} is on hold."
            if action == "hold"
            else f"Printer {printer} is resumed. Its slips are sent within seconds."
        )
        self.redirect(list_address(self, back))

    async def _show(self, printer: str, action: str, back: str) -> None:
        printers: list[dict[str, Any]] = await self.query(queries.printers)
        found = next((status for status in printers if status["printer"] == printer), None)
        if found is None:
            raise tornado.web.HTTPError(404, "There is no such printer.")
        self.render_page("printer.html", printer=found, action=action, back=back, list_address=list_address(self, back))

    def _action(self, action: str) -> str:
        if action not in CHANGES:
            raise tornado.web.HTTPError(400, "There is no such action.")
        return action
