# SPDX-License-Identifier: Apache-2.0
"""Flower's application with a check before each handler: the access table decides, whatever the handler itself checks."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, assert_never
from urllib.parse import urlencode

import structlog
import tornado.web
from flower.api import BaseApiHandler
from flower.app import Flower
from flower.views import BaseHandler
from flower.views.tasks import TasksDataTable

from workers.flower.access import Access, required_access
from workers.flower.auth import has_bearer_token
from workers.flower.inspector import BoundedInspector
from workers.flower.task_table import TaskTable
from workers.flower.trouble import Trouble
from workers.flower.user import UserHandler

log = structlog.get_logger()

REFUSAL = (
    "This Flower does not control workers or tasks. Stop and start workers with the service manager; act on slips on the"
    " page Prints or with 'bookdrop prints'.\n"
)

UNKNOWN_FAILURE = (
    "Flower could not complete the request. Load the page again. If you performed an action, look at the slip or message"
    " first: its history shows whether the action was performed. The cause is in Flower's log."
)

_FLOWERS_OWN = frozenset({401, 403, 404})
"""Statuses for which Flower's own response is complete: the login, and a page with the message."""


_REPLACED: Mapping[type[Any], type[Any]] = {TasksDataTable: TaskTable}
"""Handlers of Flower to bookdrop's subclasses of them. Their access is that of Flower's handler."""


class GuardedFlower(Flower):  # type: ignore[misc]  # Flower has no types
    """Flower, with the access table applied to each request before its handler is created, and with a bounded inspector."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inspector = BoundedInspector(self.io_loop, self.capp, self.options.inspect_timeout / 1000.0)

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
        target_class = _REPLACED.get(target_class, target_class)
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
    trouble: Trouble | None = None

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
        return self._prepare_page()

    async def _prepare_page(self) -> None:
        """Read the numbers for the navigation, then continue with the handler's own preparation."""
        if self.access is not Access.METRICS:
            self.trouble = await self.resources.trouble.latest()
        prepared = super().prepare()
        if prepared is not None:
            await prepared

    def write_error(self, status_code: int, **details: Any) -> None:
        """Respond to a failure with a page that has the navigation, the cause and the next step."""
        if status_code in _FLOWERS_OWN or isinstance(self, BaseApiHandler):
            super().write_error(status_code, **details)
            return
        if not hasattr(self, "_current_user"):
            self.current_user = None  # a login that failed is not tried again for the page of the failure
        error = details.get("exc_info", (None, None, None))[1]
        known = error.get_message() if isinstance(error, tornado.web.HTTPError) else None
        self.render("failure.html", status_code=status_code, message=known or UNKNOWN_FAILURE)


@lru_cache(maxsize=200)
def _guarded(handler: type[Any], access: Access) -> type[Any]:
    """Return a subclass of `handler` that requires `access`."""
    return type(handler.__name__, (_Guard, handler), {"access": access, "__module__": handler.__module__})
