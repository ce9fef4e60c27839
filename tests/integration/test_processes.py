# SPDX-License-Identifier: Apache-2.0
"""Processes of the embedded default: watched, stopped, cleared when left over."""

import os
import signal
import subprocess
import sys
import time

import pytest

from workers.embedded.data_dir import AlreadyRunningError, DataDirectory, ProcessState
from workers.embedded.supervisor import ProcessSupervisor, Program, end, started_at

SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
)


def until(condition, patience=10.0):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@pytest.fixture
def crew(tmp_path):
    """A crew, what it tells of its processes, and nothing left of it."""
    told: dict[str, tuple[int, str]] = {}

    def tell(children):
        told.clear()
        told.update(children)

    crew = ProcessSupervisor(tmp_path, tell)
    yield crew, told
    crew.stop()


def test_a_dead_process_is_started_again(crew):
    """A process that is killed is back soon, under its name."""
    crew, told = crew
    crew.start([Program("sleeper", SLEEPER, {})])
    first, _ = told["sleeper"]

    os.kill(first, signal.SIGKILL)

    until(lambda: told["sleeper"][0] != first)
    assert started_at(told["sleeper"][0]) == told["sleeper"][1]


def test_stop_leaves_nothing(crew, tmp_path):
    """Stop ends all of them, the deaf ones by force."""
    crew, told = crew
    crew.start([Program("sleeper", SLEEPER, {}), Program("deaf", STUBBORN, {}, patience=0.2)])
    until(lambda: (tmp_path / "deaf.log").read_bytes() == b"deaf\n")
    pids = [pid for pid, _ in told.values()]

    crew.stop()

    assert [started_at(pid) for pid in pids] == [None, None]
    assert told == {}


def test_a_reused_process_id_is_left_alone():
    """A process that started at another time than the one remembered is not ours to end."""
    process = subprocess.Popen(SLEEPER, start_new_session=True)
    try:
        assert not end(process.pid, "Mon Jan  1 00:00:00 2001", patience=1)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_folder_is_used_by_one(tmp_path):
    """While one holds the folder, another is told who; afterwards it is free."""
    home = DataDirectory(tmp_path / "home")
    home.prepare()
    home.remember(ProcessState(pid=4711))

    with home.lock():
        assert home.is_running()
        with pytest.raises(AlreadyRunningError, match="process 4711"), home.lock():
            pass

    assert not home.is_running()


def test_keys_are_made_once_and_private(tmp_path):
    """A station's key stays the same from start to start; nobody else may read it."""
    home = DataDirectory(tmp_path / "home")
    home.prepare()

    first = home.station_keys(["a", "b"])
    home.write_config(first)

    assert home.station_keys(["b", "a"]) == {"b": first["b"], "a": first["a"]}
    assert first["a"] != first["b"]
    assert home.config.stat().st_mode & 0o077 == 0
    assert home.station_config("b").stat().st_mode & 0o077 == 0


def test_socket_path_stays_short(tmp_path):
    """A folder far down gets its socket in a short place: sockets allow about 100 characters."""
    deep = DataDirectory(tmp_path / ("d" * 120))

    assert len(str(deep.socket)) < 100
    assert deep.socket != DataDirectory(tmp_path / ("e" * 120)).socket
