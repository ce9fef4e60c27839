# SPDX-License-Identifier: Apache-2.0
"""The access that each handler of Flower and of bookdrop requires, for each HTTP method: one table.

A handler that the table does not contain is refused, so a handler of a newer Flower serves no request until a test that
compares the table with Flower's URLs has failed and someone has added it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from flower.api import control, tasks, workers
from flower.views import auth, broker, error, monitor
from flower.views import tasks as task_views
from flower.views import workers as worker_views
from tornado.web import ErrorHandler, RequestHandler, StaticFileHandler

from workers.flower.batch_page import BatchPage
from workers.flower.printer_page import PrinterPage
from workers.flower.prints import PrintsPage, SlipPage
from workers.flower.quarantine_pages import DecisionPage, MessagePage, QuarantinePage
from workers.flower.returns import ReturnsPage
from workers.flower.slip_preview import SlipPreview
from workers.flower.trouble_data import TroubleData


class Access(StrEnum):
    """The user that a request requires."""

    PUBLIC = "public"
    """Every client: the response depends on no worker, task or row."""
    VIEW = "view"
    """A user whom the configured login admits. Without a login, every client that reaches the port."""
    METRICS = "metrics"
    """The same, or the holder of the setting `flower_metrics_token`."""
    ACT = "act"
    """An identified user who may act."""
    REFUSED = "refused"
    """No user. bookdrop needs none of these functions: services are stopped by the service manager."""


_READ: Final = {"GET": Access.VIEW}
_NO_POST: Final = {"POST": Access.REFUSED}

ACCESS: Final[Mapping[type[Any], Mapping[str, Access]]] = {
    # bookdrop's pages
    PrintsPage: _READ,
    SlipPage: {"GET": Access.VIEW, "POST": Access.ACT},
    SlipPreview: _READ,
    BatchPage: {"GET": Access.VIEW, "POST": Access.ACT},
    PrinterPage: {"GET": Access.VIEW, "POST": Access.ACT},
    ReturnsPage: _READ,
    QuarantinePage: _READ,
    MessagePage: _READ,
    DecisionPage: {"GET": Access.VIEW, "POST": Access.ACT},
    TroubleData: _READ,
    # Flower's pages
    worker_views.WorkersView: _READ,
    worker_views.WorkerView: _READ,
    task_views.TaskView: _READ,
    task_views.TasksView: _READ,
    task_views.TasksDataTable: {"GET": Access.VIEW, "POST": Access.VIEW},  # its POST reads: the search is in the body
    broker.BrokerView: _READ,
    # Flower's API: what reads
    workers.ListWorkers: _READ,
    tasks.ListTasks: _READ,
    tasks.ListTaskTypes: _READ,
    tasks.GetQueueLengths: _READ,
    tasks.TaskInfo: _READ,
    tasks.TaskResult: _READ,
    # Flower's API: what controls workers, or publishes and revokes tasks
    control.WorkerShutDown: _NO_POST,
    control.WorkerPoolRestart: _NO_POST,
    control.WorkerPoolGrow: _NO_POST,
    control.WorkerPoolShrink: _NO_POST,
    control.WorkerPoolAutoscale: _NO_POST,
    control.WorkerQueueAddConsumer: _NO_POST,
    control.WorkerQueueCancelConsumer: _NO_POST,
    control.TaskRevoke: _NO_POST,
    control.TaskTimout: _NO_POST,
    control.TaskRateLimit: _NO_POST,
    tasks.TaskApply: _NO_POST,
    tasks.TaskAsyncApply: _NO_POST,
    tasks.TaskSend: _NO_POST,
    tasks.TaskAbort: _NO_POST,
    # The rest
    monitor.Metrics: {"GET": Access.METRICS},
    monitor.Healthcheck: {"GET": Access.PUBLIC},
    auth.LoginHandler: {},  # has no method: it creates the handler of the setting auth_provider, which authenticates
    auth.LogoutHandler: {"GET": Access.PUBLIC},
    error.NotFoundErrorHandler: {"GET": Access.PUBLIC, "POST": Access.PUBLIC},
    StaticFileHandler: {"GET": Access.PUBLIC, "HEAD": Access.PUBLIC},
}


def required_access(handler: type[RequestHandler], method: str) -> Access:
    """Return the access that `method` of `handler` requires. For a missing method tornado responds with 405."""
    if handler is ErrorHandler:
        return Access.PUBLIC  # tornado's response to an address outside Flower's prefix
    methods = ACCESS.get(handler)
    if methods is None:
        return Access.REFUSED
    if method == "OPTIONS" or not implements(handler, method):
        return Access.PUBLIC  # Flower responds to OPTIONS with 204 and no content
    return methods.get(method, Access.REFUSED)


def implements(handler: type[RequestHandler], method: str) -> bool:
    """Return whether `handler` has a method for the HTTP method `method`, for example `POST`."""
    name = method.lower()
    return method in handler.SUPPORTED_METHODS and getattr(handler, name) is not getattr(RequestHandler, name)
