# SPDX-License-Identifier: Apache-2.0
"""What our pages in Flower share: who is there and may act, the token of a form, the database asked beside the loop."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode

import structlog
import tornado.web
from flower.utils.template import naturaltime
from flower.views import BaseHandler
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from tornado.escape import xhtml_escape

from schemas.database import READ_ONLY
from tasks.context import Context
from workers.flower.auth import People, named_in
from workers.flower.saved_searches import SEARCHES, Search
from workers.settings import WorkerSettings

log = structlog.get_logger()

Answer = TypeVar("Answer")

SIGNED_IN: Final = "bookdrop_user"
"""Cookie of who signed in at our own page, signed."""

SIGNED_IN_DAYS: Final = 0.5
_SAID: Final = "bookdrop_said"


@dataclass(frozen=True)
class Parts:
    """What our pages work with. One for each Flower."""

    settings: WorkerSettings
    engine: Engine
    here: Context
    people: People
    deciding: ThreadPoolExecutor
    """One thread: decisions are published on one kept connection."""
    searches: tuple[Search, ...] = SEARCHES


class Page(BaseHandler):  # type: ignore[misc]  # Flower has no types
    """A page of ours: Flower's look, its login and its read-only mode; and the XSRF token for every form, always."""

    @property
    def parts(self) -> Parts:
        """What the pages work with."""
        parts: Parts = self.settings["bookdrop"]
        return parts

    @property
    def visitor(self) -> str | None:
        """Who is there, by the name that stands in the history of what they decide; `None` when nobody is known."""
        options = self.application.options
        user = self.current_user  # asked first: Flower refuses a wrong password here
        if not user:
            return None
        if options.auth:
            return str(user)
        if options.basic_auth:
            return named_in(self.request.headers.get("Authorization", ""))
        people = self.parts.people
        if people.user_header is not None:
            return people.named_by_proxy(self.request.headers)
        name = self.get_secure_cookie(SIGNED_IN, max_age_days=SIGNED_IN_DAYS)
        return name.decode() if name and name.decode() in people.passwords else None

    @property
    def why_not(self) -> str | None:
        """Why whoever is there cannot decide anything, in words; `None` when they can."""
        people = self.parts.people
        if self.application.options.read_only:
            return "This Flower is read-only: nothing can be decided here."
        visitor = self.visitor
        if visitor is not None:
            return None if people.may_act(visitor) else f"{visitor} may look, and not decide."
        if self.can_sign_in:
            return "Sign in to decide what becomes of a slip."
        if people.user_header is not None:
            return "The login did not say who you are: nothing can be decided here."
        return "No login is set up for this Flower: nothing can be decided here."

    @property
    def can_sign_in(self) -> bool:
        """Tell whether our own page of signing in is in use: only where no other login is."""
        options = self.application.options
        people = self.parts.people
        return bool(people.passwords) and not (options.auth or options.basic_auth or people.user_header)

    def actor(self) -> str:
        """Who decides. Raises 403 when whoever is there may not: a button that is not shown is not enough."""
        reason, visitor = self.why_not, self.visitor
        if reason is not None or visitor is None:
            raise tornado.web.HTTPError(403, reason or "Nobody is known.")
        return visitor

    def set_default_headers(self) -> None:
        """Flower's, and: not in a frame, not in a cache."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", "frame-ancestors 'none'; form-action 'self'")

    def check_xsrf_cookie(self) -> None:
        """Flower's own checks of where the request comes from, and the token in any case: Flower asks for it with OAuth only."""
        super().check_xsrf_cookie()
        tornado.web.RequestHandler.check_xsrf_cookie(self)

    async def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """Read from the database, in a thread. Raises 503 when it cannot be read."""

        def read() -> Answer:
            with self.parts.engine.connect().execution_options(**READ_ONLY) as connection:
                return question(connection)

        return await self._guarded(self.application.executor, read)

    async def decide(self, decision: Callable[[Context], Answer]) -> Answer:
        """Have something decided, in the thread of decisions. Raises 503 when it cannot be kept."""
        return await self._guarded(self.parts.deciding, lambda: decision(self.parts.here))

    async def _guarded(self, where: Any, work: Callable[[], Answer]) -> Answer:
        try:
            return await self.application.io_loop.run_in_executor(where, work)  # type: ignore[no-any-return]
        except SQLAlchemyError as error:
            log.warning("database_not_reached", error=type(error).__name__)
            raise tornado.web.HTTPError(
                503, "The database does not answer. Nothing was changed. 'bookdrop doctor' says more."
            ) from error

    def say(self, words: str) -> None:
        """Have the next page say this, once."""
        self.set_secure_cookie(_SAID, words, expires_days=None)

    def heard(self) -> str | None:
        """What this page is to say, of what was done before it."""
        words = self.get_secure_cookie(_SAID)
        if words is None:
            return None
        self.clear_cookie(_SAID)
        return str(words.decode())

    def show(self, template: str, **values: Any) -> None:
        """Render a page, with what all of ours need."""
        self.render(
            template,
            visitor=self.visitor,
            why_not=self.why_not,
            can_sign_in=self.can_sign_in,
            said=self.heard(),
            when=when,
            here_again=urlencode(parse_qsl(self.request.query)),
            **values,
        )

    def text(self, name: str, longest: int) -> str:
        """A field of the form: one line, without control characters, at most `longest` characters."""
        value = self.get_body_argument(name, "")
        return " ".join("".join(c if c.isprintable() else " " for c in value).split())[:longest]


def when(moment: str | None) -> str:
    """A time as HTML: how long ago, and exactly when the pointer rests on it."""
    if moment is None:
        return '<span class="value-missing">&mdash;</span>'
    at = datetime.fromisoformat(moment)
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f'<time datetime="{at.isoformat()}" title="{exact}">{xhtml_escape(naturaltime(datetime.now(UTC) - at))}</time>'
    )
