# SPDX-License-Identifier: Apache-2.0
"""Death at an exact point: the suite arms a point with a file, and the process that comes there kills itself.

A point is a place in the program that a wrapper calls out when it is reached (`tests/fault/worker.py` and
`tests/fault/station.py` wrap the program's own functions; the program knows nothing of it). The file says at which of
the next visits it strikes, so that a run can be repeated.
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

VICTIMS = ("process", "whole")
"""Who dies: the process that came by, or all of its group: a worker with its pool."""

_PR_SET_PDEATHSIG = 1


class Arms:
    """The armed points of one run, in a folder that all of its processes know."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def arm(self, who: str, point: str, *, victim: str = "whole", visit: int = 1) -> Path:
        """Have `who` (a role, or a station) die at its `visit`-th visit of `point` from now on; give the file."""
        path = self._folder / f"{who}@{point}@{victim}"
        path.with_suffix(".struck").unlink(missing_ok=True)
        path.write_text(str(visit))
        return path

    def has_struck(self, armed: Path) -> bool:
        """Whether somebody died of it."""
        return armed.with_suffix(".struck").exists()

    def disarm(self) -> None:
        """Nobody dies any more."""
        for path in self._folder.glob("*@*@*"):
            if path.suffix != ".struck":
                path.unlink(missing_ok=True)

    def visit(self, who: str, point: str) -> None:
        """Say that the calling process is at `point`. It does not return when the point strikes."""
        for victim in VICTIMS:
            path = self._folder / f"{who}@{point}@{victim}"
            if path.exists() and self._strikes(path):
                if victim == "whole":
                    os.killpg(os.getpgrp(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)  # death takes a moment

    @staticmethod
    def _strikes(path: Path) -> bool:
        with contextlib.suppress(FileNotFoundError), path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            left = int(file.read() or "0") - 1
            if left < 0 or not path.exists():  # somebody else was faster
                return False
            if left == 0:
                path.rename(path.with_suffix(".struck"))
                return True
            file.seek(0)
            file.truncate()
            file.write(str(left))
        return False

    def around(self, who: str, function: Callable[..., Any], before: str | None, after: str | None) -> Any:
        """`function`, with a visit before and one after it."""

        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if before is not None:
                self.visit(who, before)
            result = function(*args, **kwargs)
            if after is not None:
                self.visit(who, after)
            return result

        return wrapped


def become(log: Path, environment: dict[str, str]) -> None:
    """Make a forked child a process of its own: session, settings, and a log for what it says."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # nothing outlives the suite
    for name in [name for name in os.environ if name.startswith("BOOKDROP_")]:
        del os.environ[name]
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for stream in (1, 2):
        os.dup2(file, stream)
