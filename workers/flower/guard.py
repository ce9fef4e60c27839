# SPDX-License-Identifier: Apache-2.0
"""Flower's application with a check before each handler: the access table decides, whatever the handler itself checks."""

from functools import lru_cache
from typing import Any, assert_never
from urllib.parse import urlencode

import structlog
import tornado.web
from flower.app import Flower
from flower.views import BaseHandler

from workers.flower.access import Access, required_access
from workers.flower.auth import has_bearer_token
from workers.flower.user import UserHandler

log = structlog.get_logger()

REFUSAL = (
    "This Flower does not control workers or tasks. Stop and start workers with the service manager; act on slips on the"
    " page Prints or with 'bookdrop prints'.\n"
)


class GuardedFlower(Flower):  # type: ignore[misc]  # Flower has no types
    """Flower, with the access table applied to each request before its handler is created."""

    def get_handler_delegate(
        self,
        request: Any,
        target_class: type[Any],
        target_kwargs: dict[str, Any] | None = None,
        path_args: list[bytes] | None = None,
        path_kwargs: dict[str, bytes] | None = None,
    ) -> Any:
        """Return tornado's delegate for the handler itself, for the handler behind its check, or for a refusal."""
        access = required_access(target_class, request.method)
        if access is Access.REFUSED:
            log.warning("flower_request_refused", reason=target_class.__name__)
            return super().get_handler_delegate(request, RefusedHandler, {}, path_args, path_kwargs)
        if access is not Access.PUBLIC:
            target_class = _guarded(target_class, access)  # type: ignore[arg-type]  # a class is hashable
        return super().get_handler_delegate(request, target_class, target_kwargs, path_args, path_kwargs)


class RefusedHandler(BaseHandler):  # type: ignore[misc]  # Flower has no types
    """The response to a request that no user may make. It reads neither login nor body."""

    def check_xsrf_cookie(self) -> None:
        """Check nothing, because the request is refused in any case."""

    def prepare(self) -> None:
        """Respond with 403."""
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(REFUSAL)


class _Guard(UserHandler):
    """Checks the user before the method of a handler runs."""

    access: Access

    def prepare(self) -> Any:
        """Raise 401 or 403, redirect to the login, or continue with the handler's own preparation."""
        match self.access:
            case Access.ACT:
                self.require_actor()
            case Access.METRICS:
                token = self.resources.settings.flower_metrics_token
                if token is None or not has_bearer_token(self.request.headers, token.get_secret_value()):
                    self.require_viewer()
            case Access.VIEW:
                if self.application.options.auth and self.request.method == "GET" and not self.current_user:
                    self.redirect(f"{self.get_login_url()}?{urlencode({'next': self.request.uri})}")
                    return None
                self.require_viewer()
            case Access.PUBLIC | Access.REFUSED:  # never behind this check
                raise tornado.web.HTTPError(403)
            case _:
                assert_never(self.access)
        return super().prepare()


@lru_cache(maxsize=200)
def _guarded(handler: type[Any], access: Access) -> type[Any]:
    """Return a subclass of `handler` that requires `access`."""
    return type(handler.__name__, (_Guard, handler), {"access": access, "__module__": handler.__module__})
