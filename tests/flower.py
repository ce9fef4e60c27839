# SPDX-License-Identifier: Apache-2.0
"""Flower with bookdrop's pages as a process, a client for its pages, and print jobs to act on."""

import re
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy import select, update
from uuid6 import uuid7

from schemas.database import open_engine
from schemas.models import PrintJob, RequestEvent
from schemas.topology import reply_queue
from tasks.context import Context
from tasks.events.policy import LibraryPolicy
from tasks.events.processing import process_in
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tests.library import Library, event_id
from tests.network import free_port
from tests.polling import wait_until
from tests.processes import Deployment, stop
from workers import bootstrap
from workers.publisher import BrokerPublisher
from workers.settings import WorkerSettings


@contextmanager
def library_of(deployment: Deployment) -> Iterator[Library]:
    """A small library in the deployment's database."""
    engine = open_engine(deployment.database_url)
    yield Library(engine, deployment.folder / "spool").open()
    engine.dispose()


@contextmanager
def context_of(deployment: Deployment, library: Library) -> Iterator[Context]:
    """The context of a worker's tasks, with a publisher on the deployment's broker."""
    settings = WorkerSettings(broker_url=deployment.broker_url, database_url=deployment.database_url)
    context = bootstrap.make(settings, library.engine)
    assert isinstance(context.publisher, BrokerPublisher)
    with closing(context.publisher):
        yield context


class FlowerProcess:
    """`bookdrop flower` as a process, on a free port."""

    def __init__(self, deployment: Deployment, *options: str, **settings: str) -> None:
        self.port = free_port()
        prefix = next((option.partition("=")[2] for option in options if option.startswith("--url_prefix")), "")
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/{prefix}".rstrip("/")
        self.log = deployment.folder / f"flower-{self.port}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.cli", "flower", f"--port={self.port}", *options],
                env=deployment.environment(**settings),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until Flower responds."""
        wait_until(self._responds, lambda: f"Flower responds; its log: {self.log.read_text()}", ignore=(OSError,))

    def terminate(self) -> None:
        """Send TERM without waiting for the end."""
        self._process.terminate()

    def stop(self) -> int:
        """End the process by TERM; return its exit code."""
        return stop(self._process)

    def _responds(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        with urllib.request.urlopen(f"{self.url}/healthcheck", timeout=10):
            return True


@contextmanager
def running(*processes: FlowerProcess) -> Iterator[None]:
    """Processes that start at the same time, and end together."""
    try:
        for process in processes:
            process.wait()
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.stop()


def list_tasks(url: str, login: str | None = None) -> str:
    """Flower's list of tasks as JSON, requested as its page requests it."""
    form = "draw=1&start=0&length=500&search[value]=&order[0][column]=0&order[0][dir]=asc&columns[0][data]=name"
    request = urllib.request.Request(f"{url}/tasks/datatable", data=form.encode(), headers=_authorization(login))
    with urllib.request.urlopen(request, timeout=300) as page:
        return page.read().decode()


def _authorization(login: str | None) -> dict[str, str]:
    """The header of basic authentication, where there is a login."""
    return {} if login is None else {"Authorization": "Basic " + b64encode(login.encode()).decode()}


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are returned, not followed."""

    def redirect_request(self, *_args, **_named):
        """Follow none."""


class FlowerClient:
    """An HTTP client with cookies, as the browser of a user."""

    def __init__(self, url: str, login: str | None = None, **headers: str) -> None:
        self._url = url
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self._headers |= _authorization(login)
        self.cookies = CookieJar()
        self._open = urllib.request.build_opener(
            NoRedirect, urllib.request.HTTPCookieProcessor(self.cookies), urllib.request.ProxyHandler({})
        ).open

    def get(self, path: str, **query: str) -> tuple[int, str]:
        """Status and text of a page."""
        return self._request(f"{path}?{urlencode(query)}" if query else path, None, {})

    def post(self, path: str, *, token: str | None = "", headers: dict[str, str] | None = None, **fields: str):
        """Submit a form; return status, and text or location. The XSRF token is the right one, another, or `None`."""
        if token == "":
            found = re.search(r'name="_xsrf" value="([^"]+)"', self.get("/prints")[1] + self.get(path)[1])
            token = found[1] if found else self._token()
        form = fields if token is None else {**fields, "_xsrf": token}
        return self._request(path, urlencode(form).encode(), headers or {})

    def _token(self) -> str | None:
        return next((cookie.value for cookie in self.cookies if cookie.name == "_xsrf"), None)

    def _request(self, path: str, form: bytes | None, headers: dict[str, str]) -> tuple[int, str]:
        request = urllib.request.Request(f"{self._url}{path}", form, {**self._headers, **headers})
        try:
            with self._open(request, timeout=300) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.headers.get("Location") or error.read().decode()


def process_scan(library: Library, context: Context, barcode: str, *, station: str = "main-desk-1") -> UUID:
    """Process a scan and publish its messages; return the id of its event."""
    policy = LibraryPolicy(new_id=uuid7, undo_window=context.undo_window, patron_card_pattern=None)
    scan = library.scan(barcode, station=station)
    with context.unit_of_work() as uow:
        process_in(uow, [Received(scan, reply_queue(station))], RETURN_HANDLER, policy)
    context.publisher.publish_outbox(uow.pending_messages)
    return event_id(scan)


def published_print_job(library: Library, context: Context, *, station: str = "main-desk-1", **request: Any) -> UUID:
    """Return an item with a slip, and publish its print task; give the id of the print job."""
    _, [barcode] = library.request(**request)
    event = process_scan(library, context, barcode, station=station)
    with context.sessions() as session:
        return session.execute(select(PrintJob.id).where(PrintJob.event_id == event)).scalar_one()


def set_print_job(library: Library, job_id: UUID, **columns: object) -> None:
    """Set columns of a print job."""
    with library.engine.begin() as connection:
        connection.execute(update(PrintJob).where(PrintJob.id == job_id).values(**columns))


def print_state(library: Library, job_id: UUID) -> str:
    """The state of a print job."""
    with library.engine.connect() as connection:
        return connection.execute(select(PrintJob.state).where(PrintJob.id == job_id)).scalar_one().value


def decisions_about(library: Library, job_id: UUID) -> list[tuple[str, str, str]]:
    """The operators' decisions in the history of requests that concern a print job: kind, actor, reason."""
    with library.engine.connect() as connection:
        lines = connection.execute(
            select(RequestEvent).where(RequestEvent.kind.like("slip_%")).order_by(RequestEvent.id)
        ).all()
    return [(line.kind, line.details["actor"], line.note) for line in lines if line.details["slip"] == str(job_id)]


def identifications_about(library: Library, job_id: UUID) -> list[tuple[str, str]]:
    """The operator of each decision about a print job, and how they were identified."""
    with library.engine.connect() as connection:
        lines = connection.execute(
            select(RequestEvent).where(RequestEvent.kind.like("slip_%")).order_by(RequestEvent.id)
        ).all()
    about = [line.details for line in lines if line.details["slip"] == str(job_id)]
    return [(details["actor"], details["identified_by"]) for details in about]
