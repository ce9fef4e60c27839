# SPDX-License-Identifier: Apache-2.0
"""What is done to a run: each blow is a function of a scene, and returns when the trouble is over."""

import contextlib
import os
import random
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from schemas.models import OutboxEntry, PrintJob
from schemas.print_jobs import PrintState
from tests.fault.scene import Scene
from tests.fault.servers import Valkey
from tests.proxy import Proxy

Blow = Callable[[Scene, random.Random], None]

_COMES_BY = 40.0
"""How long a process may take to come to an armed point, in seconds."""


def kill_at(role: str, point: str, victim: str = "whole", visit: int = 1, *, must_strike: bool = True) -> Blow:
    """Have whoever plays `role` die at `point`; `a station` is any one of them.

    `must_strike`: a run in which nobody comes there proves nothing, and is told as broken.
    """

    def blow(scene: Scene, dice: random.Random) -> None:
        who = dice.choice(scene.codes) if role == "a station" else role
        armed = [scene.arms.arm(who, point, victim=victim, visit=visit)]
        if role == "housekeeping" and "reply" in point:  # it has something to publish only after somebody else died
            armed.append(scene.arms.arm("returns", "before the reply"))
        deadline = time.monotonic() + _COMES_BY
        while not all(scene.arms.has_struck(each) for each in armed):
            scene.wait(0.05)
            if _is_over(scene) or time.monotonic() > deadline:
                if must_strike and not all(scene.arms.has_struck(each) for each in armed):
                    scene.missed.append(f"the fault did not strike: {who} did not come by {point}")
                return

    return blow


def _is_over(scene: Scene) -> bool:
    """Everything is done, and nothing is left to publish: whoever has not come by will not come any more."""
    return (
        scene.answered() >= scene.setup.scans
        and scene.count(PrintJob, PrintJob.state != PrintState.DONE) == 0
        and scene.count(OutboxEntry) == 0
        and all(scene.actors[code].ended for code in scene.codes)
    )


def kill_now(name: str) -> Blow:
    """SIGKILL of a worker and its pool, wherever it is."""

    def blow(scene: Scene, dice: random.Random) -> None:
        scene.actors[name].signal(signal.SIGKILL)
        scene.wait(0.1)

    return blow


def asleep(name: str, seconds: float) -> Blow:
    """A worker is stopped with whatever it holds, and wakes up when others have long been given its work."""

    def blow(scene: Scene, dice: random.Random) -> None:
        actor = scene.actors[name]
        actor.signal(signal.SIGSTOP)
        scene.wait(seconds)
        actor.signal(signal.SIGCONT)

    return blow


def with_a_message_just_popped(scene: Scene, dice: random.Random) -> None:
    """SIGSTOP an idle returns worker, let a message come to it, SIGKILL it. Before any station is open."""
    actor = scene.actors["returns"]
    if isinstance(scene.broker, Valkey):
        client = scene.broker.client
        scene.until(lambda: _waits_for_a_message(client), "the worker does not wait", 30)
    else:
        scene.wait(3)
    actor.signal(signal.SIGSTOP)
    scene.open_stations()
    scene.until(lambda: scene.taken() >= len(scene.codes), "no station scans", 30)
    scene.wait(0.7)
    actor.signal(signal.SIGKILL)


def _waits_for_a_message(client: "redis.Redis") -> bool:
    """Whether all three workers are blocked until something comes; the atomic receive waits by BLMOVE."""
    waiting = [each["cmd"] for each in client.client_list() if "b" in each["flags"]]
    return len([command for command in waiting if command in {"blmove", "brpop"}]) >= 3


def broker_killed_with_a_backlog(scene: Scene, dice: random.Random) -> None:
    """SIGKILL of the server while scans wait in it, and a start anew."""
    with _returns_asleep(scene):
        more = min(scene.setup.scans, scene.taken() + 4)
        scene.until(lambda: scene.taken() >= more, "no station scans", 30)
        scene.wait(0.3)
        scene.broker.kill()
        scene.wait(0.5)
        scene.broker.start()


@contextmanager
def _returns_asleep(scene: Scene) -> Iterator[None]:
    workers = [actor for name, actor in scene.actors.items() if name.startswith("returns")]
    for actor in workers:
        actor.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for actor in workers:
            actor.signal(signal.SIGCONT)


def broker_stopped(seconds: float) -> Blow:
    """The server is there and does not answer."""

    def blow(scene: Scene, dice: random.Random) -> None:
        scene.broker.stop()
        try:
            scene.wait(seconds)
        finally:
            scene.broker.go_on()

    return blow


def database_away(seconds: float) -> Blow:
    """PostgreSQL ends at once and starts again; an SQLite file is locked by somebody else for so long."""

    def blow(scene: Scene, dice: random.Random) -> None:
        if scene.setup.database == "postgres":
            scene.grounds.postgres().restart()
            return
        connection = sqlite3.connect(scene.folder / "bookdrop.db", timeout=30, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            scene.wait(seconds)
            connection.execute("ROLLBACK")
        finally:
            connection.close()

    return blow


def network(what: str, whose: str, seconds: float = 0.0) -> Blow:
    """`what`: cut, reset, stall or refuse. `whose`: stations, workers, or the workers' to the database."""

    def blow(scene: Scene, dice: random.Random) -> None:
        proxy: Proxy | None = getattr(scene, f"to_{whose}")
        if proxy is None:
            return
        getattr(proxy, what)()
        if what in {"stall", "refuse"}:
            try:
                scene.wait(seconds)
            finally:
                proxy.resume()

    return blow


def spool_disk_full(seconds: float) -> Blow:
    """The disk of the slips is full for a while: none is lost, and the returns go on."""

    def blow(scene: Scene, dice: random.Random) -> None:
        with _full(scene, "spool", "printing"):
            scene.wait(seconds)

    return blow


def journal_disk_full(seconds: float) -> Blow:
    """The disk of a station's journal is full for a while: scans are not taken, and staff scan again."""

    def blow(scene: Scene, dice: random.Random) -> None:
        code = dice.choice(scene.codes)
        with _full(scene, "journals", code):
            scene.wait(seconds)

    return blow


@contextmanager
def _full(scene: Scene, folder: str, name: str) -> Iterator[None]:
    """Fill the small disk at `folder` of the run; without one, let the process `name` write no file any further."""
    disk = scene.folder / folder
    if disk.is_mount():
        with contextlib.suppress(OSError), (disk / ".filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            (disk / ".filler").unlink()
        return
    pids = _group(scene.actors[name].pid)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _group(leader: int) -> list[int]:
    """All processes of a group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(int(folder.name)) == leader:
                found.append(int(folder.name))
    return found


def nothing(scene: Scene, dice: random.Random) -> None:
    """No blow at all: what is wrong then is wrong always."""


def amid(blow: Blow) -> Blow:
    """The blow falls when the stations are at work and some answers have come."""

    def later(scene: Scene, dice: random.Random) -> None:
        scene.until(lambda: scene.answered() >= 3, "nothing is answered")
        blow(scene, dice)

    return later


def several(*blows: Blow) -> Blow:
    """One after the other, without waiting for the run to come right between them."""

    def blow(scene: Scene, dice: random.Random) -> None:
        for each in blows:
            each(scene, dice)

    return blow
