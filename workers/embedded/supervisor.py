# SPDX-License-Identifier: Apache-2.0
"""Start, restart and stop the processes of the embedded default, and end leftovers of an earlier one."""

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

EARLY_EXIT_SECONDS = 30.0
"""A process that ends within this time after its start has exited early."""
MAX_EARLY_EXITS = 3
"""After this many early exits in a row the supervisor does not restart the process."""
_LAST_LINES = 3
_MAX_LINE = 500


@dataclass(frozen=True)
class Program:
    """A program to run, and the name of its process."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    stop_timeout: float = 20.0
    """Time that the process has to end after TERM, in seconds. Then the supervisor kills it."""


@dataclass(frozen=True)
class ProcessFailure:
    """A process that exited early too often."""

    name: str
    code: int
    """Its last exit code; negative for a signal."""
    log: Path
    output: str
    """The last lines that it wrote."""

    def __str__(self) -> str:
        return (
            f"The process {self.name} ended {MAX_EARLY_EXITS} times in a row right after its start, last with exit code"
            f" {self.code}. Its log {self.log} ends with:\n{self.output or '(no output)'}"
        )


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes]
    started: float
    log_start: int
    """Size of the log file at the start of the process."""
    early_exits: int = 0


def started_at(pid: int) -> str | None:
    """Return the start time of process `pid` as `ps` prints it; `None` if there is no such process."""
    found = subprocess.run(
        ["ps", "-p", str(pid), "-o", "stat=,lstart="], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return None if not found or found[0].startswith("Z") else found[1].strip()


def end(pid: int, since: str, timeout: float) -> bool:
    """End a process that is not a child of this one: TERM, then KILL. Return whether it existed."""
    if started_at(pid) != since:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if started_at(pid) != since:
                return True
            time.sleep(0.05)
    return True


class ProcessSupervisor:
    """A set of processes that are restarted when they end, until `stop`.

    `on_change` receives the name, process id and start time of each process after every start and stop. `on_failure` is
    called once, in the monitor thread, when a process exited early `MAX_EARLY_EXITS` times in a row. `failure` then
    describes it, and nothing is restarted any more.
    """

    def __init__(
        self,
        logs: Path,
        on_change: Callable[[dict[str, tuple[int, str]]], None],
        on_failure: Callable[[], None],
        *,
        early_exit_seconds: float = EARLY_EXIT_SECONDS,
    ) -> None:
        self._logs = logs
        self._on_change = on_change
        self._on_failure = on_failure
        self._early_exit_seconds = early_exit_seconds
        self._stages: list[dict[str, _Child]] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._monitor, daemon=True)
        self.failure: ProcessFailure | None = None

    def start(self, programs: Sequence[Program]) -> None:
        """Start `programs` as one stage, and monitor them.

        Each gets its own session, so that Ctrl-C reaches this process only.
        """
        with self._lock:
            self._stages.append({program.name: self._spawn(program) for program in programs})
            self._report()
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Stop all processes, the last stage first."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            while self._stages:
                stage = self._stages.pop().values()
                for child in stage:
                    child.process.terminate()
                for child in stage:
                    try:
                        child.process.wait(child.program.stop_timeout)
                    except subprocess.TimeoutExpired:
                        os.killpg(child.process.pid, signal.SIGKILL)
                        child.process.wait()
            self._report()

    def _log_file(self, program: Program) -> Path:
        return self._logs / f"{program.name}.log"

    def _spawn(self, program: Program) -> _Child:
        with self._log_file(program).open("ab") as output:
            log_start = os.fstat(output.fileno()).st_size
            process = subprocess.Popen(
                program.command,
                env={**os.environ, **program.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return _Child(program, process, time.monotonic(), log_start)

    def _report(self) -> None:
        self._on_change(
            {
                name: (child.process.pid, started_at(child.process.pid) or "")
                for stage in self._stages
                for name, child in stage.items()
            }
        )

    def _monitor(self) -> None:
        while not self._stopping.wait(0.5):
            with self._lock:
                for stage in self._stages:
                    for child in list(stage.values()):
                        self._restart_if_ended(stage, child)
            if self.failure is not None:
                if not self._stopping.is_set():
                    self._on_failure()
                return

    def _restart_if_ended(self, stage: dict[str, _Child], child: _Child) -> None:
        code = child.process.poll()
        if code is None or self._stopping.is_set() or self.failure is not None:
            return
        is_early = time.monotonic() - child.started < self._early_exit_seconds
        early_exits = child.early_exits + 1 if is_early else 0
        name = child.program.name
        if early_exits >= MAX_EARLY_EXITS:
            log.error("process_failed", worker=name, reason=f"exit code {code}")
            self.failure = ProcessFailure(name, code, self._log_file(child.program), self._last_output(child))
            return
        log.warning("process_restarted", worker=name, reason=f"exit code {code}")
        stage[name] = self._spawn(child.program)
        stage[name].early_exits = early_exits
        self._report()

    def _last_output(self, child: _Child) -> str:
        with self._log_file(child.program).open("rb") as file:
            file.seek(child.log_start)
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        return "\n".join(line[:_MAX_LINE] for line in lines[-_LAST_LINES:])
