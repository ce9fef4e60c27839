# SPDX-License-Identifier: Apache-2.0
"""Flower serves each request to those only whom the access table admits, and an action carries the user's own name."""

import http.client
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlparse

import pytest
from celery.events.event import get_exchange
from flower.urls import handlers as flower_handlers
from kombu import Connection
from tornado.web import RequestHandler, StaticFileHandler
from uuid6 import uuid7

from schemas.print_jobs import PrintState as State
from schemas.topology import PRINT_ACTIONS_QUEUE, PRINT_SLIP, REPRINT_SLIP
from tests.flower import (
    FlowerClient,
    FlowerProcess,
    context_of,
    decisions_about,
    identifications_about,
    print_state,
    published_print_job,
    running,
    set_print_job,
)
from tests.polling import wait_until
from workers.flower.access import Access, implements, required_access
from workers.flower.application import HANDLERS
from workers.flower.slip_events import MAX_WORKERS
from workers.runtime.queues import queue_declaration

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite")]

ANN, BEN = "ann:long-enough", "ben:long-too"
SECRET, TOKEN = "only-the-proxy-knows", "only-prometheus-knows"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def basic(login: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(login.encode()).decode()}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_login_outside_ascii_admits_the_right_password_only(deployment, library, encoding):
    """Clients encode a login in UTF-8 or in Latin-1: the right one is admitted, and a wrong one gets 401."""

    def status_of(login: str) -> int:
        encoded = b64encode(login.encode(encoding)).decode()
        return respond(process, "GET", "/workers", {"Authorization": f"Basic {encoded}"})[0]

    with flower(deployment, FLOWER_BASIC_AUTH=f"zoë:gehört-mir,{ANN}") as process:
        admitted = [status_of(login) for login in ("zoë:gehört-mir", ANN)]
        refused = [status_of(login) for login in ("zoë:gehört-dir", "zoe:gehört-mir", "ann:lång-enough", "ÿ", "zoë")]
        page = respond(process, "GET", "/prints", basic("zoë:gehört-mir"))
        undecodable = respond(process, "GET", "/workers", {"Authorization": "Basic \u00fc"})[0]

    assert admitted == [200, 200]
    assert refused == [401] * 5
    assert page[0] == 200
    assert undecodable == 401


def routes(worker: str, slip: object) -> Iterator[tuple[type[Any], str]]:
    """Each handler of the URL map, with a path that it serves."""
    for each in (*flower_handlers, *HANDLERS):
        pattern, handler = each[:2] if isinstance(each, tuple) else (each.regex.pattern, each.handler_class)
        path = pattern.removesuffix("$").replace("/?", "").replace(".*", "", pattern == ".*")
        of_worker = re.search("/worker/", path) is not None
        sample = str(slip) if "prints" in path else quote(worker) if of_worker else str(uuid7())
        sample = PRINT_SLIP if re.search("apply|send-task|timeout|rate-limit", path) else sample
        sample = "main-slips" if "/printer/" in path else "1" if "/quarantine/" in path else sample
        if issubclass(handler, StaticFileHandler):
            sample = "bookdrop.css" if "bookdrop" in path else "favicon.ico"
        yield handler, re.sub(r"\(.*\)", sample, path).replace("\\", "") or "/no-such-page"


def respond(flower: FlowerProcess, method: str, path: str, headers: dict[str, str], body: str = "") -> tuple[int, str]:
    """Status and content of one request."""
    address = urlparse(flower.url)
    connection = http.client.HTTPConnection("127.0.0.1", flower.port, timeout=60)
    try:
        connection.request(method, f"{address.path}{path}", body or None, headers)
        response = connection.getresponse()
        if response.status == 101:
            return 101, ""
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


def each_request(worker: str, slip: object) -> Iterator[tuple[Access, str, str]]:
    """The required access, the method and the path of each request that some handler serves."""
    for handler, path in routes(worker, slip):
        for method in RequestHandler.SUPPORTED_METHODS:
            if implements(handler, method) and method != "OPTIONS":
                yield required_access(handler, method), method, path


def call(task: str, slip: object) -> str:
    """A body for Flower's API, and for its forms."""
    return json.dumps({"args": [str(slip), "the head librarian", "because"], "kwargs": {}, "name": task})


@contextmanager
def flower(deployment: Any, *options: str, **settings: str) -> Iterator[FlowerProcess]:
    process = FlowerProcess(deployment, *options, **settings)
    with running(process):
        yield process


def count_messages(url: str, queue: str) -> int:
    with Connection(url) as connection:
        declared: Any = queue_declaration(queue).bind(connection.default_channel).queue_declare(passive=False)
    return int(declared.message_count)


def known_worker(process: FlowerProcess, role: str, headers: dict[str, str]) -> str:
    """The name of the worker of `role`, once Flower has inspected it: until then its API refuses to control it."""

    def name() -> str | None:
        status, text = respond(process, "GET", "/api/workers?refresh=1", headers)
        return next((each for each in (json.loads(text) if status == 200 else {}) if each.startswith(role)), None)

    wait_until(lambda: name() is not None, f"Flower lists the worker {role}")
    return str(name())


@pytest.mark.brokers("redis", "rabbitmq")
def test_no_user_controls_workers_and_viewers_do_not_act(broker_url, deployment, raw_station, library):
    """Each request of the URL map without a login, as a viewer and as an operator: no worker ends, no task is sent."""
    settings = {"FLOWER_BASIC_AUTH": f"{ANN},{BEN}", "BOOKDROP_FLOWER_OPERATORS": "ann"}
    with (
        context_of(deployment, library) as context,
        deployment.worker("returns") as worker,
        flower(deployment, **settings) as process,
    ):
        slip = published_print_job(library, context)
        set_print_job(library, slip, state=State.UNKNOWN)
        queued = count_messages(broker_url, "printing.main")
        name = known_worker(process, "returns", basic(ANN))

        found = {
            user: {
                (access, method, path): respond(process, method, path, headers, call(REPRINT_SLIP, slip))[0]
                for access, method, path in each_request(name, slip)
            }
            for user, headers in {
                "anonymous": {}, "wrong": basic("ann:wrong"), "viewer": basic(BEN), "operator": basic(ANN)
            }.items()
        }  # fmt: skip
        replies = raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))
        is_alive = worker.poll() is None

    for user, statuses in found.items():
        for (access, method, path), status in statuses.items():
            match access:
                case Access.REFUSED:
                    expected = {403}
                case Access.ACT:
                    expected = {401, 403}  # an operator's form lacks its token
                case Access.VIEW | Access.METRICS if user in {"anonymous", "wrong"}:
                    expected = {401}
                case _:
                    expected = {200, 302, 400, 404, 503}
            assert status in expected, (user, method, path, status)
    assert is_alive
    assert replies[0]["outcome"] == "returned"
    assert count_messages(broker_url, PRINT_ACTIONS_QUEUE) == 0
    assert count_messages(broker_url, "printing.main") == queued + 1  # the slip of the scan
    assert (print_state(library, slip), decisions_about(library, slip)) == ("unknown", [])


@pytest.mark.brokers("redis", "rabbitmq")
def test_reprint_carries_the_name_of_the_login(broker_url, deployment, library):
    """A viewer's reprint is refused. An operator's is recorded with the login's name, whatever the form contains."""
    settings = {"FLOWER_BASIC_AUTH": f"{ANN},{BEN}", "BOOKDROP_FLOWER_OPERATORS": "ann"}
    other: dict[str, Any] = {"actor": "the head librarian", "user": "the head librarian", "name": "the head librarian"}
    with (
        context_of(deployment, library) as context,
        deployment.worker("printing"),
        flower(deployment, **settings) as process,
    ):
        slip = published_print_job(library, context)
        wait_until(lambda: print_state(library, slip) == "done", "the first slip is done")
        ben = FlowerClient(process.url, BEN, X_Remote_User="ann", X_Forwarded_User="ann", X_Bookdrop_Proxy=SECRET)
        ann = FlowerClient(process.url, ANN, X_Remote_User="the head librarian")

        refused = ben.post(f"/prints/{slip}", do="reprint", reason="let me", **other)[0]
        done = ann.post(f"/prints/{slip}", do="reprint", reason="torn", **other)
        wait_until(lambda: len(list((library.spool / "main").glob("*.pdf"))) == 2, "the copy is printed")

    assert refused == 403
    assert done[0] == 302
    assert decisions_about(library, slip) == [("slip_reprinted", "ann", "torn")]
    assert identifications_about(library, slip) == [("ann", "signed_in")]


@pytest.mark.parametrize(
    ("options", "settings", "headers"),
    [
        ((), {"FLOWER_UNAUTHENTICATED_API": "true"}, {}),
        (("--read-only", f"--basic_auth={ANN}"), {}, basic(ANN)),
        (
            ("--url_prefix=ops",),
            {
                "BOOKDROP_FLOWER_USER_HEADER": "X-Remote-User",
                "BOOKDROP_FLOWER_PROXY_SECRET": SECRET,
                "FLOWER_UNAUTHENTICATED_API": "true",
            },
            {"X-Remote-User": "ann", "X-Bookdrop-Proxy": "guessed"},
        ),
        (
            (
                "--auth=.*@example.org",
                "--auth_provider=flower.views.auth.GoogleAuth2LoginHandler",
                "--oauth2_key=key",
                "--oauth2_secret=secret",
                "--oauth2_redirect_uri=http://localhost/login",
            ),
            {},
            {"Cookie": "user=ann@example.org", "Authorization": "Bearer guessed"},
        ),
    ],
    ids=["without a login", "read-only", "around the proxy", "without the provider's login"],
)
def test_other_logins_admit_no_one_else(deployment, library, options, settings, headers):
    """Each request with each way to configure a login, by a client that it does not admit, also as a WebSocket."""
    with context_of(deployment, library) as context, flower(deployment, *options, **settings) as process:
        slip = published_print_job(library, context)
        set_print_job(library, slip, state=State.UNKNOWN)
        requests = list(each_request("returns@host", slip))

        plain = {
            (access, method, path): respond(process, method, path, headers, call(REPRINT_SLIP, slip))[0]
            for access, method, path in requests
        }
        upgraded = {path: respond(process, "GET", path, {**headers, **UPGRADE})[0] for _, _, path in requests}
        for path in ("/update-workers", "/update-tasks", "/api/task/events/task-succeeded/"):
            upgraded[path] = respond(process, "GET", path, {**headers, **UPGRADE})[0]

    is_admitted = "--read-only" in options or not ("BOOKDROP_FLOWER_USER_HEADER" in settings or len(options) > 2)
    for (access, method, path), status in plain.items():
        match access:
            case Access.REFUSED | Access.ACT:
                assert status in {302, 403} if access is Access.ACT else status == 403, (method, path, status)
            case Access.VIEW | Access.METRICS if not is_admitted:
                assert status in {302, 401, 403}, (method, path, status)
    assert 101 not in upgraded.values()
    assert (print_state(library, slip), decisions_about(library, slip)) == ("unknown", [])


def forge_events(url: str) -> None:
    """Send task events of invented workers and tasks, as every program that may write to the event exchange can."""
    with Connection(url) as connection:
        exchange = get_exchange(connection)
        producer = connection.Producer()
        event: dict[str, Any] = {
            "type": "task-received", "hostname": "returns@here", "timestamp": 1_800_000_000.0, "local_received": 1.0,
            "clock": 1, "pid": 1, "utcoffset": 0, "uuid": str(uuid7()), "name": PRINT_SLIP,
        }  # fmt: skip
        forged = [{**event, "hostname": f"returns@forged-{number}"} for number in range(MAX_WORKERS + 50)]
        forged += [{**event, "name": f"invented.task_{number}"} for number in range(50)]
        forged += [{**event, "type": f"task-invented{number}"} for number in range(50)]
        forged += [{**event, "hostname": 'x"} 1\nforged_metric{a="'}, {**event, "uuid": "invented"}]
        for each in forged:
            producer.publish(
                each, exchange=exchange, declare=[exchange], routing_key="task.received", serializer="json"
            )


@pytest.mark.brokers("redis", "rabbitmq")
def test_metrics_require_a_login_and_have_no_invented_series(broker_url, deployment, library):
    """Without login or token there are no metrics. Forged events add no task and no type, and a limited number of workers."""
    settings = {"FLOWER_BASIC_AUTH": ANN, "BOOKDROP_FLOWER_METRICS_TOKEN": TOKEN}
    with deployment.worker("returns"), flower(deployment, **settings) as process:
        token = {"Authorization": f"Bearer {TOKEN}"}
        wait_until(lambda: "returns@" in respond(process, "GET", "/metrics", token)[1], "Flower has received an event")

        forge_events(broker_url)
        last = f'worker="returns@forged-{MAX_WORKERS + 49}"'
        wait_until(lambda: last in respond(process, "GET", "/metrics", token)[1], "the forged events are received")
        heartbeat = re.compile(
            r'flower_events_total\{[^}]*type="worker-|flower_worker_online\{worker="returns@(?!forged)'
        )
        wait_until(
            lambda: heartbeat.search(respond(process, "GET", "/metrics", token)[1]) is not None, "the worker is shown"
        )
        text = respond(process, "GET", "/metrics", token)[1]
        refused = [
            respond(process, "GET", "/metrics", headers)[0]
            for headers in ({}, {"Authorization": "Bearer guessed"}, {"Authorization": "Bearer"}, basic("ann:wrong"))
        ]
        pages = [respond(process, "GET", path, token)[0] for path in ("/workers", "/api/workers", "/prints")]

    assert refused == [401, 401, 401, 401]
    assert pages == [401, 401, 401]  # the token opens the metrics only
    assert len(set(re.findall(r'worker="([^"]*)"', text))) <= MAX_WORKERS
    assert "invented" not in text
    assert "forged_metric" not in text
