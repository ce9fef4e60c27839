# SPDX-License-Identifier: Apache-2.0
"""Signing in where neither Flower nor a proxy asks for a login, as with `bookdrop up`; to read, nobody has to."""

import asyncio
from typing import Final

import structlog
import tornado.web

from workers.flower.auth import LONGEST_NAME
from workers.flower.page import SIGNED_IN, SIGNED_IN_DAYS, Page

log = structlog.get_logger()

PAUSE: Final = 1.0
"""How long a wrong password takes, in seconds."""

LONGEST_PASSWORD: Final = 1000


class SignInPage(Page):
    """The form of name and password."""

    def get(self) -> None:
        """Show it."""
        self._need()
        self.show("sign_in.html", trouble=None, name="")

    async def post(self) -> None:
        """Sign in, and go to the slips."""
        self._need()
        name = self.text("name", LONGEST_NAME)
        password = self.get_body_argument("password", "", strip=False)[:LONGEST_PASSWORD]
        if not self.parts.people.is_theirs(name, password):
            log.warning("sign_in_refused", address=self.request.remote_ip)
            await asyncio.sleep(PAUSE)
            self.set_status(403)
            self.show("sign_in.html", trouble="Name and password do not fit. Nothing was changed.", name=name)
            return
        self.set_secure_cookie(SIGNED_IN, name, expires_days=SIGNED_IN_DAYS, samesite="Strict")
        self.redirect(self.reverse_url("prints"))

    def _need(self) -> None:
        if not self.can_sign_in:
            raise tornado.web.HTTPError(404, "Nobody signs in here.")


class SignOutPage(Page):
    """The end of it."""

    def post(self) -> None:
        """Sign out."""
        self.clear_cookie(SIGNED_IN)
        self.redirect(self.reverse_url("prints"))
