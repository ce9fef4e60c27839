# SPDX-License-Identifier: Apache-2.0
"""The user of a request in Flower, and what the user may do. A base class of every handler that is not public."""

from typing import Any

import tornado.web
from flower.views import BaseHandler

from tasks.operator import Identification, Operator
from workers.flower.auth import basic_auth_name
from workers.flower.resources import Resources


class UserHandler(BaseHandler):  # type: ignore[misc]  # Flower has no types
    """A handler that identifies its user by Flower's own login, or by the proxy."""

    @property
    def resources(self) -> Resources:
        """Settings, connections and threads of the pages."""
        resources: Resources = self.settings["bookdrop"]
        return resources

    @property
    def has_own_login(self) -> bool:
        """True if Flower itself authenticates users."""
        options = self.application.options
        return bool(options.auth or options.basic_auth)

    def get_current_user(self) -> Any:
        """Return a true value for a user whom the configured login admits. Raises 401 for a wrong name or password.

        Flower's own method raises an error, and responds with 500, for other characters than ASCII.
        """
        options = self.application.options
        if not options.basic_auth:
            return super().get_current_user()
        if self._basic_auth_name is None:
            raise tornado.web.HTTPError(401)
        if not options.auth:
            return True
        try:
            return super().get_current_user()
        except TypeError as error:
            raise tornado.web.HTTPError(401) from error

    @property
    def _basic_auth_name(self) -> str | None:
        return basic_auth_name(self.request.headers.get("Authorization", ""), self.application.options.basic_auth)

    @property
    def user_name(self) -> str | None:
        """Name of the user, which the history of each action contains; `None` if the user is not identified."""
        options = self.application.options
        user = self.current_user  # first: here Flower rejects a wrong password
        if not user:
            return None
        if options.auth:
            return str(user)
        if options.basic_auth:
            return self._basic_auth_name
        return self.resources.operators.name_from_proxy(self.request.headers)

    @property
    def denial(self) -> str | None:
        """Reason why the user cannot act; `None` if the user can."""
        operators = self.resources.operators
        if self.application.options.read_only:
            return "This Flower is read-only: no action is possible here."
        name = self.user_name
        if name is not None:
            return None if operators.includes(name) else f"{name} may see the pages, and may not act."
        if operators.user_header is not None:
            return "The proxy did not send your name: no action is possible here."
        return "This Flower has no login: no action is possible here."

    def require_viewer(self) -> None:
        """Raise 401 or 403 unless the configured login admits the user to the pages."""
        if self.has_own_login:
            if not self.current_user:
                raise tornado.web.HTTPError(403, "Log in first.")
        elif self.resources.operators.user_header is not None and not self.resources.operators.is_proxy(
            self.request.headers
        ):
            raise tornado.web.HTTPError(403, "Use the address of the proxy with the login.")

    def require_actor(self) -> str:
        """Return the user's name. Raises 401 or 403 unless the user may act: hiding a button is not enough."""
        self.require_viewer()
        denial, name = self.denial, self.user_name
        if denial is not None or name is None:
            raise tornado.web.HTTPError(403, denial or "You are not identified.")
        return name

    def operator(self, reason: str) -> Operator:
        """Return the user as the operator of an action. Raises like `require_actor`."""
        name = self.require_actor()
        return Operator(name, reason, Identification.SIGNED_IN if self.has_own_login else Identification.PROXY)

    def render(self, template_name: str, **values: Any) -> None:
        """Render a template. Flower's own templates show no button of a function that is refused."""
        if "read_only" in values:
            values["read_only"] = True
        super().render(template_name, **values)
