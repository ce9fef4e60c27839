# SPDX-License-Identifier: Apache-2.0
"""One run: a library, workers of every role and stations, all real processes, and a supervisor that brings back the dead."""

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
from tests.fault.arming import Arms
from tests.fault.servers import BROKERS, Broker, PostgreSQL
from tests.library import Library
from tests.proxy import Proxy

QUEUES = (RETURNS_QUEUE, printing_queue("main"))
"""Where work waits."""
SECONDS_TO_END = 10.0
_ENDS = 4
"""How often workers are ended and started anew until they leave nothing behind."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.fault.worker", "tests.fault.station"])
_numbers = itertools.count(1)


class BrokenPromiseError(Exception):
    """The suite found something that must not be. The text says what."""


class Grounds:
    """The servers, each started when it is first needed and used by one run after the other."""

    def __init__(self) -> None:
        self._brokers: dict[str, Broker] = {}
        self._postgres: PostgreSQL | None = None
        self._template: Path | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="bd-"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in (*self._brokers.values(), self._postgres):
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

    def sqlite(self, path: Path) -> str:
        """A fresh, migrated file; gives its URL."""
        if self._template is None:
            self._template = self._folder / "template.db"
            engine = open_engine(f"sqlite:///{self._template}")
            migrate(engine)
            engine.dispose()
        shutil.copy(self._template, path)
        return f"sqlite:///{path}"


@dataclass(frozen=True)
class Setup:
    """What a run consists of."""

    broker: str
    database: str
    shifts: tuple[station.Shift, ...]
    transport: str = "atomic"
    returns_workers: int = 1
    hurry: bool = True
    """Whether the program's longest waits are shortened."""
    redis_visibility_timeout_seconds: int = 30
    """Without hurry: after how long Redis gives back what a dead worker held."""
    sabotage: str | None = None
    small_disks: tuple[str, ...] = ()
    """`journals`, `spool`: which of them lie on a disk that is quickly full."""

    @property
    def scans(self) -> int:
        """How many scans there are to be in all."""
        return sum(len(shift.barcodes) for shift in self.shifts)

    @property
    def patience(self) -> float:
        """After the last blow nothing may take longer to come right, in seconds."""
        if self.sabotage is not None:
            return 30.0
        return 90.0 if self.hurry else 180.0


@dataclass
class Actor:
    """A process that is to run, and the one that does."""

    name: str
    begin: Callable[[], Any]
    process: Any
    down_until: float = 0.0
    ended: bool = False
    deaths: int = 0

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        pid: int = self.process.pid
        return pid

    def signal(self, number: int) -> None:
        """To the whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class Scene:
    """A run. Use as a context manager; then `open_stations`, whatever is to happen, and `settle`."""

    def __init__(self, grounds: Grounds, setup: Setup) -> None:
        self.setup = setup
        self.grounds = grounds
        self.broker = grounds.broker(setup.broker)
        self.folder = Path(tempfile.mkdtemp(prefix="bd-"))
        self.arms = Arms(self.folder / "arms")
        self.codes = tuple(shift.code for shift in setup.shifts)
        self.actors: dict[str, Actor] = {}
        self.began = datetime.now(UTC)
        self.missed: list[str] = []
        """Blows that hit nobody."""
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
                max(int(barcode[4:]) for shift in self.setup.shifts for barcode in shift.barcodes)
            )
            self._start_workers()
            self._stack = stack.pop_all()
            self._stack.callback(self._keep_journals)
            self._stack.callback(self._kill_all)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def forget(self) -> None:
        """Remove what the run left on the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _keep_journals(self) -> None:
        """A small disk goes with the run; what lies on it is wanted when something was wrong."""
        for name in self.setup.small_disks:
            shutil.copytree(self.folder / name, self.folder / f"{name}.kept", dirs_exist_ok=True)

    def _make_database(self, stack: ExitStack) -> tuple[str, str]:
        """Its URL as the suite uses it, and as the workers do."""
        if self.setup.database == "sqlite":
            url = self.grounds.sqlite(self.folder / "bookdrop.db")
            return url, url
        postgres = self.grounds.postgres()
        name = f"run_{os.getpid()}_{next(_numbers)}"
        postgres.create(name)
        stack.callback(postgres.drop, name)
        self.to_database = stack.enter_context(Proxy(lambda: postgres.port))
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
            "BOOKDROP_SWEEP_INTERVAL_SECONDS": "0.5" if self.setup.hurry else "5",
            "BOOKDROP_REDIS_TRANSPORT": self.setup.transport,
            "BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS": str(self.setup.redis_visibility_timeout_seconds),
        }
        log = self.folder / f"{name}.log"
        start = worker.Start(
            role, options, environment, log, self.folder / "arms", self.setup.hurry, self.setup.sabotage
        )
        self._begin(name, partial(_processes.Process, target=worker.run, args=(start,)))

    def open_stations(self) -> None:
        """Let the stations scan."""
        for shift in self.setup.shifts:
            start = station.Start(shift, self.broker.url(self.to_stations.port), self.folder, self.folder / "arms")
            self._begin(shift.code, partial(_processes.Process, target=station.run, args=(start,)))

    def _begin(self, name: str, begin: Callable[[], Any]) -> None:
        process = begin()
        process.start()
        self.actors[name] = Actor(name, begin, process)

    def tick(self) -> None:
        """Bring back whoever died, as a service manager would: after a moment."""
        now = time.monotonic()
        for actor in self.actors.values():
            if actor.ended or actor.process.is_alive():
                continue
            if actor.name in self.codes and actor.process.exitcode == 0:
                actor.ended = True
            elif actor.down_until == 0:
                actor.down_until = now + 0.3
                actor.deaths += 1
            elif now >= actor.down_until:
                actor.down_until = 0.0
                actor.process = actor.begin()
                actor.process.start()

    def wait(self, seconds: float) -> None:
        """Let `seconds` pass, with the supervisor at work."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.tick()
            time.sleep(min(0.05, left))

    def until(self, condition: Callable[[], object], what: str, patience: float | None = None) -> None:
        """Wait for `condition`. Raises `BrokenPromiseError` with `what` when it does not come."""
        patience = patience or self.setup.patience
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise BrokenPromiseError(f"{what}: still so after {patience:g} s")
            self.tick()
            time.sleep(0.05)

    def _kill_all(self) -> None:
        for actor in self.actors.values():
            actor.signal(signal.SIGKILL)
        for actor in self.actors.values():
            actor.process.join(10)

    # What is to be seen

    def count(self, model: Any, *where: Any) -> int | None:
        """Rows of a table; `None` while the database is away."""
        try:
            with self.engine.connect().execution_options(**READ_ONLY) as connection:
                return connection.execute(select(func.count()).select_from(model).where(*where)).scalar_one()
        except DBAPIError:
            return None

    def answered(self) -> int:
        """Events that have their answer in the database."""
        return self.count(InboxEntry) or 0

    def taken(self) -> int:
        """Scans in the journals."""
        return sum(station.taken(self.journal(code)) for code in self.codes)

    def journal(self, code: str) -> Path:
        """A station's journal."""
        return self.folder / "journals" / code / "journal"

    # The end

    def settle(self) -> None:
        """Wait until nothing is open any more, end the workers, and collect what is left. Raises `BrokenPromiseError`."""
        for number in range(_ENDS):
            self._come_right()
            if number > 0:
                self.wait(2.0)
            self._end_workers()
            left = self.broker.left((*QUEUES, DEAD_LETTER_QUEUE))
            if not left:
                break
            # RabbitMQ does not say what a worker holds; it gave that back when it ended. The next ones must do it.
            self._start_workers()
        else:
            raise BrokenPromiseError(f"messages stay in the broker: {left}")
        for code in self.codes:
            self._hear_the_rest(code)

    def _come_right(self) -> None:
        deadline = time.monotonic() + self.setup.patience
        while (what := self._still_open()) is not None:
            if time.monotonic() > deadline:
                raise BrokenPromiseError(f"{what}: still so after {self.setup.patience:g} s")
            self.tick()
            time.sleep(0.1)

    def _still_open(self) -> str | None:
        """What is not as it must be in the end, in words."""
        if not all(self.actors[code].ended for code in self.codes):
            return "a station has a scan without an answer"
        if self.count(PrintJob, PrintJob.state != PrintState.DONE) != 0:
            return "a slip does not come out"
        if self.broker.left(QUEUES):
            return "a message stays in the broker"
        return None if self.count(OutboxEntry) == 0 else "something stays in the outbox"

    def _end_workers(self) -> None:
        """TERM finishes what is in hand. One that does not end in time is killed, and what it held comes back."""
        workers = [actor for name, actor in self.actors.items() if name not in self.codes]
        for actor in workers:
            actor.ended = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(actor.pid, signal.SIGTERM)
        deadline = time.monotonic() + SECONDS_TO_END
        for actor in workers:
            actor.process.join(max(0.1, deadline - time.monotonic()))
            if actor.process.is_alive():
                actor.signal(signal.SIGKILL)

    def _hear_the_rest(self, code: str) -> None:
        """Note what came on a reply queue after its station had gone."""
        with (
            Connection(self.broker.url(self.broker.port)) as connection,
            (self.folder / f"{code}.heard").open("ab") as heard,
        ):
            queue = queue_declaration(reply_queue(code)).bind(connection.default_channel)
            queue.queue_declare()
            while (message := queue.get(no_ack=True)) is not None:
                body: Any = message.body
                heard.write((body if isinstance(body, bytes) else body.encode()) + b"\n")


def _mount_small_disk(stack: ExitStack, folder: Path, megabytes: int) -> None:
    """A file system of its own at `folder`, where this user may mount one. A journal grows to some 4 MB by itself."""
    folder.mkdir()
    if os.getuid() != 0:
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
