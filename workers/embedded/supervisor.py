# SPDX-License-Identifier: Apache-2.0
"""The processes of the embedded default: started, watched, stopped in order, and cleared when left over."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger()


@dataclass(frozen=True)
class Program:
    """What to run, and under which name."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    patience: float = 20.0
    """How long it may take to end after TERM, in seconds, before it is killed."""


def started_at(pid: int) -> str | None:
    """When process `pid` started, in the words of `ps`; `None` when there is no such process."""
    found = subprocess.run(
        ["ps", "-p", str(pid), "-o", "stat=,lstart="], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return None if not found or found[0].startswith("Z") else found[1].strip()


def end(pid: int, since: str, patience: float) -> bool:
    """End a process that is not our child: TERM, then KILL. Tell whether there was one to end."""
    if started_at(pid) != since:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if started_at(pid) != since:
                return True
            time.sleep(0.05)
    return True


class ProcessSupervisor:
    """Processes that belong together. One that dies is started again until `stop`."""

    def __init__(self, logs: Path, changed: Callable[[dict[str, tuple[int, str]]], None]) -> None:
        self._logs = logs
        self._changed = changed
        self._stages: list[dict[str, tuple[Program, subprocess.Popen[bytes]]]] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._keep_alive, daemon=True)

    def start(self, programs: Sequence[Program]) -> None:
        """Start `programs` as one stage, and watch them.

        Each has a session of its own, so that Ctrl-C reaches only us.
        """
        with self._lock:
            self._stages.append({program.name: (program, self._spawn(program)) for program in programs})
            self._tell()
        if not self._watch.is_alive():
            self._watch.start()

    def stop(self) -> None:
        """Stop all, the stage that was started last first; each process has its patience."""
        self._stopping.set()
        if self._watch.is_alive():
            self._watch.join()
        with self._lock:
            while self._stages:
                stage = self._stages.pop().values()
                for _, process in stage:
                    process.terminate()
                for program, process in stage:
                    try:
                        process.wait(program.patience)
                    except subprocess.TimeoutExpired:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.wait()
            self._tell()

    def _spawn(self, program: Program) -> subprocess.Popen[bytes]:
        with (self._logs / f"{program.name}.log").open("ab") as output:
            return subprocess.Popen(
                program.command,
                env={**os.environ, **program.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _tell(self) -> None:
        self._changed(
            {
                name: (process.pid, started_at(process.pid) or "")
                for stage in self._stages
                for name, (_, process) in stage.items()
            }
        )

    def _keep_alive(self) -> None:
        while not self._stopping.wait(0.5):
            with self._lock:
                for stage in self._stages:
                    for name, (program, process) in list(stage.items()):
                        code = process.poll()
                        if code is not None and not self._stopping.is_set():
                            log.warning("process_restarted", worker=name, reason=f"ended with {code}")
                            stage[name] = (program, self._spawn(program))
                            self._tell()
