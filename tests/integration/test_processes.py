# SPDX-License-Identifier: Apache-2.0
"""Processes of the embedded default: restarted, stopped, ended when left over; and its data directory."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.polling import TIMEOUT, wait_until
from workers.embedded.data_dir import AlreadyRunningError, DataDirectory, ProcessState
from workers.embedded.supervisor import MAX_EARLY_EXITS, ProcessSupervisor, Program, end, started_at

SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")
IGNORES_TERM = (
    sys.executable,
    "-c",
    "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)",
)
FAILS = (
    sys.executable,
    "-c",
    "print('started\\n\\nError: unknown setting.\\nNothing was changed.'); raise SystemExit(2)",
)

Processes = dict[str, tuple[int, str]]


@pytest.fixture
def processes() -> Processes:
    """The processes that the supervisor reported last."""
    return {}


@pytest.fixture
def failed() -> threading.Event:
    """Set when the supervisor reports a failure."""
    return threading.Event()


@pytest.fixture
def supervised(tmp_path: Path, processes: Processes, failed: threading.Event) -> Iterator[ProcessSupervisor]:
    """A supervisor for which no exit is early, because the tests' processes live shortly."""
    supervisor = ProcessSupervisor(tmp_path, _store_in(processes), failed.set, early_exit_seconds=0.0)
    yield supervisor
    supervisor.stop()


def _is_restarted(processes: Processes, pid: int) -> bool:
    return processes["sleeper"][0] != pid


def _store_in(processes: Processes) -> Callable[[Processes], None]:
    def store(reported: Processes) -> None:
        processes.clear()
        processes.update(reported)

    return store


def test_killed_process_is_restarted(supervised, processes, failed):
    """A process that is killed again and again is restarted under its name; that is not a failure."""
    supervised.start([Program("sleeper", SLEEPER, {})])

    for _ in range(MAX_EARLY_EXITS + 1):
        pid, _ = processes["sleeper"]
        os.kill(pid, signal.SIGKILL)
        wait_until(partial(_is_restarted, processes, pid))

    assert started_at(processes["sleeper"][0]) == processes["sleeper"][1]
    assert (supervised.failure, failed.is_set()) == (None, False)


def test_process_that_ends_at_every_start_is_a_failure(tmp_path, processes, failed):
    """After three early exits the supervisor reports the exit code and the last lines, once, and restarts nothing."""
    supervisor = ProcessSupervisor(tmp_path, _store_in(processes), failed.set)
    try:
        supervisor.start([Program("sleeper", SLEEPER, {}), Program("returns", FAILS, {})])
        assert failed.wait(TIMEOUT)
        failed.clear()
        time.sleep(1.0)
        starts = (tmp_path / "returns.log").read_text().count("started")
    finally:
        supervisor.stop()

    failure = supervisor.failure
    assert failure is not None
    assert (failure.name, failure.code, failure.log) == ("returns", 2, tmp_path / "returns.log")
    assert failure.output == "started\nError: unknown setting.\nNothing was changed."
    assert "returns.log ends with:\nstarted\nError: unknown setting." in str(failure)
    assert (starts, failed.is_set()) == (MAX_EARLY_EXITS, False)


def test_stop_ends_every_process(supervised, processes, tmp_path):
    """A process that ignores TERM is killed after its timeout."""
    stubborn = Program("stubborn", IGNORES_TERM, {}, stop_timeout=0.2)
    supervised.start([Program("sleeper", SLEEPER, {}), stubborn])
    wait_until(lambda: (tmp_path / "stubborn.log").read_bytes() == b"ready\n")
    pids = [pid for pid, _ in processes.values()]

    supervised.stop()

    assert [started_at(pid) for pid in pids] == [None, None]
    assert processes == {}


def test_reused_process_id_is_not_ended():
    """A process with another start time than the stored one is left running."""
    process = subprocess.Popen(SLEEPER, start_new_session=True)
    try:
        assert not end(process.pid, "Mon Jan  1 00:00:00 2001", timeout=1)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_data_directory_is_locked_by_one_process(tmp_path):
    """While one process holds the lock, another gets an error with the process id; afterwards the lock is free."""
    directory = DataDirectory(tmp_path / "home")
    directory.prepare()
    directory.save_state(ProcessState(pid=4711))

    with directory.lock():
        assert directory.is_running()
        with pytest.raises(AlreadyRunningError, match="process 4711"), directory.lock():
            pass

    assert not directory.is_running()


def test_station_keys_are_generated_once_and_private(tmp_path):
    """A station's key is the same at each start; only the owner can read the files."""
    directory = DataDirectory(tmp_path / "home")
    directory.prepare()

    first = directory.station_keys(["a", "b"])
    directory.write_config(first)

    assert directory.station_keys(["b", "a"]) == {"b": first["b"], "a": first["a"]}
    assert first["a"] != first["b"]
    assert directory.config.stat().st_mode & 0o077 == 0
    assert directory.station_config("b").stat().st_mode & 0o077 == 0


def test_flower_login_is_generated_once_and_private(tmp_path):
    """Name and password are the same at each start, a damaged file gets a new password; only the owner can read it."""
    directory = DataDirectory(tmp_path / "home")
    directory.prepare()

    name, password = directory.flower_login()
    values: dict[str, list[str]] = {}
    exec(directory.flower_config.read_text(), values)

    assert values["basic_auth"] == [f"{name}:{password}"]
    assert directory.flower_login() == (name, password)
    assert directory.flower_config.stat().st_mode & 0o077 == 0
    directory.flower_config.write_text("basic_auth = [")
    assert directory.flower_login() not in {(name, password), (name, "")}


def test_socket_path_stays_short(tmp_path):
    """A deep data directory gets its socket in a temporary folder: the limit is about 100 characters."""
    deep = DataDirectory(tmp_path / ("d" * 120))

    assert len(str(deep.socket)) < 100
    assert deep.socket != DataDirectory(tmp_path / ("e" * 120)).socket
