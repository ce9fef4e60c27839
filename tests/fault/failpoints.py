# SPDX-License-Identifier: Apache-2.0
"""Failpoints: a file enables one, and the process that reaches it kills itself.

`tests/fault/worker.py` and `tests/fault/station.py` wrap functions of the program from outside, so that each call
reports the failpoints it passes. The program has no hooks for this. The file holds the number of the pass at which the
failpoint fires, so that a run can be repeated.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

TARGETS = ("process", "group")
"""The processes that are killed: the one at the failpoint, or its whole group, for example a worker with its pool."""

_PR_SET_PDEATHSIG = 1


class Failpoints:
    """The failpoints of one run, as files in a folder that all its processes use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def enable(self, name: str, point: str, *, target: str = "group", nth: int = 1) -> Path:
        """Kill `name` (a role or a station) at its `nth` pass of `point` from now on; return the failpoint's file."""
        path = self._folder / f"{name}@{point}@{target}"
        path.with_suffix(".fired").unlink(missing_ok=True)
        path.write_text(str(nth))
        return path

    def has_fired(self, path: Path) -> bool:
        """True when the failpoint has killed its target."""
        return path.with_suffix(".fired").exists()

    def disable_all(self) -> None:
        """Disable every failpoint that has not fired."""
        for path in self._folder.glob("*@*@*"):
            if path.suffix != ".fired":
                path.unlink(missing_ok=True)

    def reach(self, name: str, point: str) -> None:
        """Report that the calling process is at `point`. The call does not return when the failpoint fires."""
        for target in TARGETS:
            path = self._folder / f"{name}@{point}@{target}"
            if path.exists() and self._fires(path):
                if target == "group":
                    os.killpg(os.getpgrp(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)  # until the signal is delivered

    @staticmethod
    def _fires(path: Path) -> bool:
        with contextlib.suppress(FileNotFoundError), path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            left = int(file.read() or "0") - 1
            if left < 0 or not path.exists():  # another process was faster
                return False
            if left == 0:
                path.rename(path.with_suffix(".fired"))
                return True
            file.seek(0)
            file.truncate()
            file.write(str(left))
        return False

    def wrap(self, name: str, function: Callable[..., Any], before: str | None, after: str | None) -> Any:
        """`function` with a failpoint before and one after it."""

        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if before is not None:
                self.reach(name, before)
            result = function(*args, **kwargs)
            if after is not None:
                self.reach(name, after)
            return result

        return wrapped


def isolate(log: Path, environment: dict[str, str]) -> None:
    """Give a forked child a new session, the environment of a run, and a log for its output."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # no process outlives the suite
    for name in [name for name in os.environ if name.startswith("BOOKDROP_")]:
        del os.environ[name]
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for stream in (1, 2):
        os.dup2(file, stream)
