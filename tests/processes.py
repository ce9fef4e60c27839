# SPDX-License-Identifier: Apache-2.0
"""Real processes of bookdrop on a broker and a database: workers, commands, stations."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from stations.settings import StationSettings
from tests.library import KEY

STATION = "main-desk-1"


def clean_environment(**settings: str) -> dict[str, str]:
    """The environment of this process without settings of bookdrop and Flower, and with `settings`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOOKDROP_", "FLOWER_"))}
    return {**kept, **settings}


def stop(process: subprocess.Popen, timeout: float = 60.0) -> int:
    """End a process by TERM, and its group by KILL after `timeout` seconds; return its exit code."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        try:
            process.wait(timeout)
        finally:  # also when the test itself times out
            if process.poll() is None:
                kill_group(process)
    return process.wait()


def kill_group(process: subprocess.Popen) -> int:
    """SIGKILL a process and all of its group, for example a worker with its pool; return its exit code."""
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def children_of(process: subprocess.Popen) -> list[int]:
    """Process ids of a worker's pool."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in listed.stdout.split()]


@contextmanager
def suspended(pids: Iterable[int]) -> Iterator[None]:
    """Suspend processes by SIGSTOP; resume those that still exist."""
    suspended_pids = list(pids)
    for pid in suspended_pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in suspended_pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@dataclass(frozen=True)
class Deployment:
    """A broker, a database and a folder for logs, journals and heartbeat files. Its methods start processes on them."""

    broker_url: str
    database_url: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    """Environment variables of every process."""

    def environment(self, **settings: str) -> dict[str, str]:
        """The environment of a worker or a command."""
        return clean_environment(
            BOOKDROP_BROKER_URL=self.broker_url,
            BOOKDROP_DATABASE_URL=self.database_url,
            **{**self.settings, **settings},
        )

    def log(self, role: str) -> str:
        """The log of all workers of `role` so far."""
        return (self.folder / f"{role}.log").read_text(encoding="utf-8")

    def heartbeat(self, role: str) -> Path:
        """The heartbeat file of a worker."""
        return self.folder / f"{role}.heartbeat"

    def journal(self, code: str = STATION) -> Path:
        """The journal of a station."""
        return self.folder / f"{code}.journal"

    def start_worker(self, role: str, *options: str, **settings: str) -> subprocess.Popen[bytes]:
        """Start `bookdrop worker` in a new session, with a sweep every second."""
        return self._start(role, ["workers.cli", "worker", role, *options], **settings)

    @contextmanager
    def worker(self, role: str, *options: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        """A `bookdrop worker`, ended by TERM."""
        process = self.start_worker(role, *options, **settings)
        try:
            yield process
        finally:
            stop(process)

    @contextmanager
    def celery(self, *arguments: str, role: str = "all", **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command of Celery's own program, ended by TERM. `role` is the setting of the process and names its log."""
        process = self._start(role, ["celery", "-A", "workers.app", *arguments], BOOKDROP_ROLE=role, **settings)
        try:
            yield process
        finally:
            stop(process)

    def celery_worker(self, *options: str, **settings: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """A returns worker started by Celery's own command, ended by TERM."""
        return self.celery("worker", "-Q", "returns", *options, role="returns", **settings)

    def bookdrop(self, *arguments: object, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a `bookdrop` command to its end."""
        return self._run(["workers.cli", *map(str, arguments)], self.environment(**settings), stdin)

    def station(self, *arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a `bookdrop-station` command of `main-desk-1` to its end."""
        environment = clean_environment(
            **{
                "BOOKDROP_BROKER_URL": self.broker_url,
                "BOOKDROP_STATION_CODE": STATION,
                "BOOKDROP_STATION_KEY": KEY,
                "BOOKDROP_STATION_JOURNAL": str(self.journal()),
                "BOOKDROP_STATION_REPLY_TIMEOUT_SECONDS": "60",
                "NO_COLOR": "1",
                **settings,
            }
        )
        return self._run(["stations.cli", *arguments], environment, stdin)

    def station_settings(self, code: str = STATION, **settings: Any) -> StationSettings:
        """Settings of a station client on this broker."""
        given: dict[str, Any] = {
            "code": code,
            "key": SecretStr(KEY),
            "broker_url": SecretStr(self.broker_url),
            "journal": self.journal(code),
            **settings,
        }
        return StationSettings(**given)

    def _start(self, role: str, command: list[str], **settings: str) -> subprocess.Popen[bytes]:
        defaults = {"BOOKDROP_HEARTBEAT_FILE": str(self.heartbeat(role)), "BOOKDROP_SWEEP_INTERVAL_SECONDS": "1"}
        with (self.folder / f"{role}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self.environment(**{**defaults, **settings}),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _run(self, command: list[str], environment: dict[str, str], stdin: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *command],
            input=stdin, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
