# SPDX-License-Identifier: Apache-2.0
"""A real Flower with our pages, a visitor who keeps cookies, and slips to decide about."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
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
from tests.printers import free_port
from tests.wire import stop
from workers import bootstrap
from workers.publisher import BrokerPublisher
from workers.settings import WorkerSettings


def place_in(folder: Path, template: Path, socket: Path) -> dict[str, Any]:
    """Broker, database and folder, as a worker or a Flower is started with, for all tests of a module."""
    shutil.copy(template, folder / "bookdrop.db")
    return {
        "folder": folder,
        "broker_url": f"redis+socket://{socket}",
        "database_url": f"sqlite:///{folder / 'bookdrop.db'}",
    }


@contextmanager
def library_of(place: dict[str, Any]) -> Iterator[Library]:
    """A small library there; each test makes slips of its own."""
    engine = open_engine(place["database_url"])
    yield Library(engine, place["folder"] / "spool").open()
    engine.dispose()


@contextmanager
def context_of(place: dict[str, Any], library: Library) -> Iterator[Context]:
    """What a Return and a decision need, with a publisher on the real broker."""
    settings = WorkerSettings(broker_url=place["broker_url"], database_url=place["database_url"])
    made = bootstrap.make(settings, library.engine)
    assert isinstance(made.publisher, BrokerPublisher)
    with closing(made.publisher):
        yield made


class FlowerProcess:
    """`bookdrop flower` as a process of ours, on a port of its own."""

    def __init__(
        self, folder: Path, broker_url: str, database_url: str, options: Sequence[str] = (), **environment: str
    ) -> None:
        self.port = free_port()
        prefix = next((each.partition("=")[2] for each in options if each.startswith("--url_prefix")), "")
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/{prefix}".rstrip("/")
        self.log = folder / f"flower-{self.port}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("BOOKDROP_", "FLOWER_"))}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.cli", "flower", f"--port={self.port}", *options],
                env={
                    **clean,
                    "BOOKDROP_BROKER_URL": broker_url,
                    "BOOKDROP_DATABASE_URL": database_url,
                    **environment,
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it answers, at most a minute."""
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/healthcheck", timeout=10):
                    return
            except (URLError, OSError):
                assert self._process.poll() is None, self.log.read_text()
                time.sleep(0.1)
        raise AssertionError(f"Flower does not answer: {self.log.read_text()}")

    def tell_to_stop(self) -> None:
        """Tell it to end; `stop` waits for it."""
        self._process.terminate()

    def stop(self) -> int:
        """End it by TERM."""
        return stop(self._process)


@contextmanager
def flowers(*given: FlowerProcess) -> Iterator[None]:
    """They start side by side, and are stopped at the end."""
    try:
        for each in given:
            each.wait()
        yield
    finally:
        for each in given:
            each.tell_to_stop()
        for each in given:
            each.stop()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are looked at, not followed."""

    def redirect_request(self, *_args, **_named):
        """Follow none."""


class Visitor:
    """A browser without a screen: keeps cookies, sends what it is told."""

    def __init__(self, flower: FlowerProcess | str, login: str | None = None, **headers: str) -> None:
        self._url = flower if isinstance(flower, str) else flower.url
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if login is not None:
            self._headers["Authorization"] = "Basic " + b64encode(login.encode()).decode()
        self.cookies = CookieJar()
        self._open = urllib.request.build_opener(
            NoRedirect, urllib.request.HTTPCookieProcessor(self.cookies), urllib.request.ProxyHandler({})
        ).open

    def get(self, path: str, **query: str) -> tuple[int, str]:
        """Status and text of a page."""
        return self._ask(f"{path}?{urlencode(query)}" if query else path, None, {})

    def post(self, path: str, *, token: str | None = "", headers: dict[str, str] | None = None, **fields: str):
        """Status and text (or where it leads) after a form; with the right token, or another, or none."""
        if token == "":
            found = re.search(r'name="_xsrf" value="([^"]+)"', self.get("/prints")[1] + self.get(path)[1])
            token = found[1] if found else self._token()
        form = fields if token is None else {**fields, "_xsrf": token}
        return self._ask(path, urlencode(form).encode(), headers or {})

    def _token(self) -> str | None:
        return next((cookie.value for cookie in self.cookies if cookie.name == "_xsrf"), None)

    def _ask(self, path: str, form: bytes | None, headers: dict[str, str]) -> tuple[int, str]:
        request = urllib.request.Request(f"{self._url}{path}", form, {**self._headers, **headers})
        try:
            with self._open(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.headers.get("Location") or error.read().decode()


def scanned(library: Library, here: Context, barcode: str, *, station: str = "main-desk-1") -> UUID:
    """A scan, answered, and what follows published; gives its event's id."""
    house = LibraryPolicy(new_id=uuid7, undo_window=here.undo_window, patron_card_pattern=None)
    scan = library.scan(barcode, station=station)
    with here.unit_of_work() as uow:
        process_in(uow, [Received(scan, reply_queue(station))], RETURN_HANDLER, house)
    here.publisher.publish_outbox(uow.pending_messages)
    return event_id(scan)


def wanted_slip(library: Library, here: Context, *, station: str = "main-desk-1", **request: Any) -> UUID:
    """A Return that wants a slip, its order published; gives the print job's id."""
    _, [barcode] = library.request(**request)
    event = scanned(library, here, barcode, station=station)
    with here.sessions() as session:
        return session.execute(select(PrintJob.id).where(PrintJob.event_id == event)).scalar_one()


def set_slip(library: Library, slip: UUID, **columns: object) -> None:
    """Make the slip as a test needs it."""
    with library.engine.begin() as connection:
        connection.execute(update(PrintJob).where(PrintJob.id == slip).values(**columns))


def state_of(library: Library, slip: UUID) -> str:
    """State of the slip."""
    with library.engine.connect() as connection:
        return connection.execute(select(PrintJob.state).where(PrintJob.id == slip)).scalar_one().value


def decisions_about(library: Library, slip: UUID) -> list[tuple[str, str, str]]:
    """What the history of requests says of the slip: what, by whom, why."""
    with library.engine.connect() as connection:
        rows = connection.execute(
            select(RequestEvent).where(RequestEvent.kind.like("slip_%")).order_by(RequestEvent.id)
        ).all()
    return [(row.kind, row.details["actor"], row.note) for row in rows if row.details["slip"] == str(slip)]
