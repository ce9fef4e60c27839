# SPDX-License-Identifier: Apache-2.0
"""The system under test of one run: a library, workers of every role and stations as processes, and a supervisor."""

import contextlib
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from kombu import Connection
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from schemas.database import READ_ONLY, open_engine
from schemas.migration import migrate
from schemas.models import InboxEntry, OutboxEntry, PrintJob
from schemas.print_jobs import PrintState
from schemas.topology import DEAD_LETTER_QUEUE, RETURNS_QUEUE, printing_queue, reply_queue
from stations.transport import queue_declaration
from tests.fault import station, worker
from tests.fault.failpoints import Failpoints
from tests.fault.servers import BROKERS, Broker, PgBouncer, PostgreSQL
from tests.library import Library
from tests.proxy import Proxy

QUEUES = (RETURNS_QUEUE, printing_queue("main"))
"""The queues of work."""
STOP_TIMEOUT = 10.0
"""Seconds that workers have to end after TERM."""
_MAX_RESTARTS = 4
"""Rounds of ending and restarting the workers until the broker holds no message."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.fault.worker", "tests.fault.station"])
_numbers = itertools.count(1)


class InvariantError(Exception):
    """An invariant does not hold. The text names it."""


class ServerPool:
    """The servers. Each is started when a run first needs it, and used by one run after the other."""

    def __init__(self) -> None:
        self._brokers: dict[str, Broker] = {}
        self._postgres: PostgreSQL | None = None
        self._pgbouncer: PgBouncer | None = None
        self._template: Path | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="bd-"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in (*self._brokers.values(), self._pgbouncer, self._postgres):
            if server is not None:
                server.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def broker(self, name: str) -> Broker:
        """Valkey or RabbitMQ."""
        if name not in self._brokers:
            self._brokers[name] = BROKERS[name]()
        return self._brokers[name]

    def postgres(self) -> PostgreSQL:
        """PostgreSQL."""
        if self._postgres is None:
            self._postgres = PostgreSQL()
        return self._postgres

    def pgbouncer(self) -> PgBouncer:
        """PgBouncer in front of PostgreSQL."""
        if self._pgbouncer is None:
            self._pgbouncer = PgBouncer(self.postgres())
        return self._pgbouncer

    def sqlite(self, path: Path) -> str:
        """A new, migrated SQLite file; returns its URL."""
        if self._template is None:
            self._template = self._folder / "template.db"
            engine = open_engine(f"sqlite:///{self._template}")
            migrate(engine)
            engine.dispose()
        shutil.copy(self._template, path)
        return f"sqlite:///{path}"


@dataclass(frozen=True)
class Setup:
    """The configuration of a run."""

    broker: str
    database: str
    workloads: tuple[station.Workload, ...]
    transport: str = "atomic"
    returns_workers: int = 1
    short_waits: bool = True
    """Shorten the program's longest waits, see `worker._shorten_waits`."""
    redis_visibility_timeout_seconds: int = 30
    """Without `short_waits`: the time after which Redis redelivers the messages of a dead worker."""
    mutation: str | None = None
    small_disks: tuple[str, ...] = ()
    """Folders on a disk of a few megabytes: `journals`, `spool`, or both."""

    @property
    def scans(self) -> int:
        """The number of scans of all stations."""
        return sum(len(workload.barcodes) for workload in self.workloads)

    @property
    def settle_timeout(self) -> float:
        """Seconds after the last fault in which the system must recover."""
        if self.mutation is not None:
            return 30.0
        return 90.0 if self.short_waits else 180.0


@dataclass
class ManagedProcess:
    """A supervised process, and the way to start it again."""

    name: str
    create: Callable[[], Any]
    process: Any
    down_until: float = 0.0
    ended: bool = False
    deaths: int = 0

    @property
    def pid(self) -> int:
        """Id of the process and of its group."""
        pid: int = self.process.pid
        return pid

    def signal(self, number: int) -> None:
        """Signal the whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class Cluster:
    """The system of a run. Use as a context manager; then call `start_stations`, inject faults, and call `settle`."""

    def __init__(self, servers: ServerPool, setup: Setup) -> None:
        self.setup = setup
        self.servers = servers
        self.broker = servers.broker(setup.broker)
        self.folder = Path(tempfile.mkdtemp(prefix="bd-"))
        self.failpoints = Failpoints(self.folder / "failpoints")
        self.codes = tuple(workload.code for workload in setup.workloads)
        self.processes: dict[str, ManagedProcess] = {}
        self.started_at = datetime.now(UTC)
        self.unfired: list[str] = []
        """Faults that did not occur."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.broker.clear([reply_queue(code) for code in self.codes])
            self.to_stations = stack.enter_context(Proxy(lambda: self.broker.port))
            self.to_workers = stack.enter_context(Proxy(lambda: self.broker.port))
            self.to_database: Proxy | None = None
            direct, self._database_url = self._make_database(stack)
            self.engine = open_engine(direct)
            stack.callback(self.engine.dispose)
            for name in ("journals", "spool"):
                if name in self.setup.small_disks:
                    _mount_small_disk(stack, self.folder / name, 8 * len(self.codes))
                else:
                    (self.folder / name).mkdir()
            self.library = Library(self.engine, self.folder / "spool").open(self.codes)
            self.library.loaned_items(
                max(int(barcode[4:]) for workload in self.setup.workloads for barcode in workload.barcodes)
            )
            self._start_workers()
            self._stack = stack.pop_all()
            self._stack.callback(self._copy_small_disks)
            self._stack.callback(self._kill_all)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def delete_files(self) -> None:
        """Delete the folder of the run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _copy_small_disks(self) -> None:
        """Copy the small disks, which are unmounted with the run, so that a failed run can be examined."""
        for name in self.setup.small_disks:
            shutil.copytree(self.folder / name, self.folder / f"{name}.copy", dirs_exist_ok=True)

    def _make_database(self, stack: ExitStack) -> tuple[str, str]:
        """The URLs of the database for the suite and for the workers."""
        if self.setup.database == "sqlite":
            url = self.servers.sqlite(self.folder / "bookdrop.db")
            return url, url
        postgres = self.servers.postgres()
        name = f"run_{os.getpid()}_{next(_numbers)}"
        postgres.create(name)
        stack.callback(postgres.drop, name)
        server = self.servers.pgbouncer() if self.setup.database == "pgbouncer" else postgres
        self.to_database = stack.enter_context(Proxy(lambda: server.port))
        return postgres.url(postgres.port, name), postgres.url(self.to_database.port, name)

    # Processes

    def _start_workers(self) -> None:
        for number in range(self.setup.returns_workers):
            self._start_worker("returns", "" if number == 0 else f"-{number + 1}")
        self._start_worker("printing", "", "--branch", "main")
        self._start_worker("housekeeping")

    def _start_worker(self, role: str, suffix: str = "", *options: str) -> None:
        name = role + suffix
        environment = {
            "BOOKDROP_BROKER_URL": self.broker.url(self.to_workers.port),
            "BOOKDROP_DATABASE_URL": self._database_url,
            "BOOKDROP_HEARTBEAT_FILE": str(self.folder / f"{name}.heartbeat"),
            "BOOKDROP_SWEEP_INTERVAL_SECONDS": "0.5" if self.setup.short_waits else "5",
            "BOOKDROP_REDIS_TRANSPORT": self.setup.transport,
            "BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS": str(self.setup.redis_visibility_timeout_seconds),
        }
        log = self.folder / f"{name}.log"
        start = worker.Start(
            role, options, environment, log, self.folder / "failpoints", self.setup.short_waits, self.setup.mutation
        )
        self._start(name, partial(_processes.Process, target=worker.run, args=(start,)))

    def start_stations(self) -> None:
        """Start the stations, which scan at once."""
        for workload in self.setup.workloads:
            start = station.Start(
                workload, self.broker.url(self.to_stations.port), self.folder, self.folder / "failpoints"
            )
            self._start(workload.code, partial(_processes.Process, target=station.run, args=(start,)))

    def _start(self, name: str, create: Callable[[], Any]) -> None:
        process = create()
        process.start()
        self.processes[name] = ManagedProcess(name, create, process)

    def supervise(self) -> None:
        """Restart ended processes after a short delay, as a service manager does."""
        now = time.monotonic()
        for process in self.processes.values():
            if process.ended or process.process.is_alive():
                continue
            if process.name in self.codes and process.process.exitcode == 0:
                process.ended = True
            elif process.down_until == 0:
                process.down_until = now + 0.3
                process.deaths += 1
            elif now >= process.down_until:
                process.down_until = 0.0
                process.process = process.create()
                process.process.start()

    def wait(self, seconds: float) -> None:
        """Wait for `seconds` while the supervisor works."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.supervise()
            time.sleep(min(0.05, left))

    def wait_until(self, condition: Callable[[], object], problem: str, timeout: float | None = None) -> None:
        """Wait until `condition` is true. Raises `InvariantError` with `problem` after `timeout` seconds."""
        timeout = timeout or self.setup.settle_timeout
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise InvariantError(f"{problem}, after {timeout:g} s")
            self.supervise()
            time.sleep(0.05)

    def _kill_all(self) -> None:
        for process in self.processes.values():
            process.signal(signal.SIGKILL)
        for process in self.processes.values():
            process.process.join(10)

    # State of the run

    def count(self, model: Any, *where: Any) -> int | None:
        """Number of rows of a table; `None` while the database is unavailable."""
        try:
            with self.engine.connect().execution_options(**READ_ONLY) as connection:
                return connection.execute(select(func.count()).select_from(model).where(*where)).scalar_one()
        except DBAPIError:
            return None

    def replied(self) -> int:
        """Number of events with a reply in the inbox."""
        return self.count(InboxEntry) or 0

    def journaled(self) -> int:
        """Number of scans in the journals."""
        return sum(station.count_events(self.journal(code)) for code in self.codes)

    def journal(self, code: str) -> Path:
        """A station's journal."""
        return self.folder / "journals" / code / "journal"

    # End of the run

    def settle(self) -> None:
        """Wait until no work is open, end the workers, and receive the remaining replies. Raises `InvariantError`."""
        for number in range(_MAX_RESTARTS):
            self._wait_until_settled()
            if number > 0:
                self.wait(2.0)
            self._end_workers()
            left = self.broker.pending((*QUEUES, DEAD_LETTER_QUEUE))
            if not left:
                break
            # RabbitMQ does not report what a worker holds, and requeues it when the worker ends. The next workers process it.
            self._start_workers()
        else:
            raise InvariantError(f"messages are left in the broker: {left}")
        for code in self.codes:
            self._drain_reply_queue(code)

    def _wait_until_settled(self) -> None:
        deadline = time.monotonic() + self.setup.settle_timeout
        while (problem := self._open_work()) is not None:
            if time.monotonic() > deadline:
                raise InvariantError(f"{problem}, after {self.setup.settle_timeout:g} s")
            self.supervise()
            time.sleep(0.1)

    def _open_work(self) -> str | None:
        """The first work that is still open, in words."""
        if not all(self.processes[code].ended for code in self.codes):
            return "a station has a scan without a reply"
        if self.count(PrintJob, PrintJob.state != PrintState.DONE) != 0:
            return "a print job is not done"
        if self.broker.pending(QUEUES):
            return "a message is left in the broker"
        return None if self.count(OutboxEntry) == 0 else "a message is left in the outbox"

    def _end_workers(self) -> None:
        """End the workers by TERM, which finishes running tasks. A worker that exceeds the timeout is killed."""
        workers = [process for name, process in self.processes.items() if name not in self.codes]
        for process in workers:
            process.ended = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT
        for process in workers:
            process.process.join(max(0.1, deadline - time.monotonic()))
            if process.process.is_alive():
                process.signal(signal.SIGKILL)

    def _drain_reply_queue(self, code: str) -> None:
        """Record the messages that arrived on a reply queue after its station had ended."""
        with (
            Connection(self.broker.url(self.broker.port)) as connection,
            (self.folder / f"{code}.received").open("ab") as received,
        ):
            queue = queue_declaration(reply_queue(code)).bind(connection.default_channel)
            queue.queue_declare()
            while (message := queue.get(no_ack=True)) is not None:
                body: Any = message.body
                received.write((body if isinstance(body, bytes) else body.encode()) + b"\n")


def _mount_small_disk(stack: ExitStack, folder: Path, megabytes: int) -> None:
    """Mount a small file system at `folder`, where this user may. A journal alone grows to some 4 MB."""
    folder.mkdir()
    if os.getuid() != 0:
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
