# SPDX-License-Identifier: Apache-2.0
"""The base class of bookdrop's pages in Flower: XSRF token, database access outside the event loop, rendering."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode

import structlog
import tornado.web
from flower.utils.template import naturaltime
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from tornado.escape import xhtml_escape

from schemas.database import READ_ONLY
from schemas.external_text import one_line
from tasks.context import Context
from tasks.operator import named_person
from workers.flower.user import UserHandler

log = structlog.get_logger()

Result = TypeVar("Result")

_FLASH_COOKIE: Final = "bookdrop_flash"


class Page(UserHandler):
    """A page with Flower's look, login and read-only mode. Every form requires the XSRF token."""

    def set_default_headers(self) -> None:
        """Add to Flower's headers: no framing, no caching."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", "frame-ancestors 'none'; form-action 'self'")

    def check_xsrf_cookie(self) -> None:
        """Run Flower's own checks of the request's origin, then always check the token: Flower does so with OAuth only."""
        super().check_xsrf_cookie()
        tornado.web.RequestHandler.check_xsrf_cookie(self)

    async def query(self, read: Callable[[Connection], Result]) -> Result:
        """Read from the database in a thread. Raises 503 if the database is unavailable."""

        def run() -> Result:
            with self.resources.engine.connect().execution_options(**READ_ONLY) as connection:
                return read(connection)

        return await self._run(self.application.executor, run)

    async def execute(self, action: Callable[[Context], Result]) -> Result:
        """Run an action in the action thread. Raises 503 if the database is unavailable."""
        return await self._run(self.resources.action_executor, lambda: action(self.resources.context))

    async def _run(self, executor: Any, work: Callable[[], Result]) -> Result:
        try:
            return await self.application.io_loop.run_in_executor(executor, work)  # type: ignore[no-any-return]
        except SQLAlchemyError as error:
            log.warning("database_not_reached", error=type(error).__name__)
            raise tornado.web.HTTPError(
                503, "The database is unavailable. Nothing was changed. Run 'bookdrop doctor' for the cause."
            ) from error

    def flash(self, message: str) -> None:
        """Store a message that the next page shows once."""
        self.set_secure_cookie(_FLASH_COOKIE, message, expires_days=None)

    def pop_flash(self) -> str | None:
        """Return the stored message, and delete it."""
        message = self.get_secure_cookie(_FLASH_COOKIE)
        if message is None:
            return None
        self.clear_cookie(_FLASH_COOKIE)
        return str(message.decode())

    def render_page(self, template: str, **values: Any) -> None:
        """Render a template with the values that all pages need."""
        self.render(
            template,
            user_name=self.user_name,
            denial=self.denial,
            flash=self.pop_flash(),
            current_query=urlencode(parse_qsl(self.request.query)),
            when=when,
            named_person=named_person,
            short_id=short_id,
            **values,
        )

    def text_field(self, name: str, max_length: int) -> str:
        """Return a field of the form as one printable line, cut to `max_length` characters."""
        return one_line(self.get_body_argument(name, ""), max_length)


def selection_changed(expected: str, total: int, noun: str) -> str:
    """The message when other rows match than those of the version `expected`, which comes from the form."""
    shown = expected.partition("-")[0]
    number = shown if shown.isdecimal() and len(shown) < 10 else "other"  # noqa: PLR2004 - as long as any count
    return (
        f"The selection has changed: the page showed {number} {noun}, and now {total} match. Nothing was changed."
        f" Compare the {noun} below, and confirm again."
    )


def short_id(identifier: str) -> str:
    """The last digits of a UUIDv7, which are random. Its first digits are a time, equal for all ids of some seconds."""
    return f"…{identifier[-8:]}"


def when(moment: str | None) -> str:
    """Return a time as HTML: relative, with the exact time as the tooltip."""
    if moment is None:
        return '<span class="value-missing">&mdash;</span>'
    at = datetime.fromisoformat(moment)
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f'<time datetime="{at.isoformat()}" title="{exact}">{xhtml_escape(naturaltime(datetime.now(UTC) - at))}</time>'
    )
