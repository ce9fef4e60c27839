# SPDX-License-Identifier: Apache-2.0
"""Faults: each is a function that injects it into a cluster, and returns when the fault is over."""

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
from tests.fault.cluster import Cluster
from tests.fault.servers import Valkey
from tests.proxy import Proxy

Fault = Callable[[Cluster, random.Random], None]

_FIRE_TIMEOUT = 40.0
"""Seconds in which a process must reach an enabled failpoint."""


def kill_at(role: str, point: str, target: str = "group", nth: int = 1, *, must_fire: bool = True) -> Fault:
    """Kill a process of `role` at a failpoint; `a station` is a random one.

    `must_fire`: a run in which no process reaches the failpoint proves nothing, and fails.
    """

    def inject(cluster: Cluster, random_numbers: random.Random) -> None:
        name = random_numbers.choice(cluster.codes) if role == "a station" else role
        enabled = [cluster.failpoints.enable(name, point, target=target, nth=nth)]
        if role == "housekeeping" and "reply" in point:  # it publishes only what a killed worker did not
            enabled.append(cluster.failpoints.enable("returns", "before the reply"))
        deadline = time.monotonic() + _FIRE_TIMEOUT
        while not all(cluster.failpoints.has_fired(path) for path in enabled):
            cluster.wait(0.05)
            if _is_over(cluster) or time.monotonic() > deadline:
                if must_fire and not all(cluster.failpoints.has_fired(path) for path in enabled):
                    cluster.unfired.append(f"the fault did not occur: {name} did not reach the failpoint {point}")
                return

    return inject


def _is_over(cluster: Cluster) -> bool:
    """True when all work is done and published, so that no further process reaches a failpoint."""
    return (
        cluster.replied() >= cluster.setup.scans
        and cluster.count(PrintJob, PrintJob.state != PrintState.DONE) == 0
        and cluster.count(OutboxEntry) == 0
        and all(cluster.processes[code].ended for code in cluster.codes)
    )


def kill_now(name: str) -> Fault:
    """SIGKILL a worker and its pool, wherever they are."""

    def inject(cluster: Cluster, random_numbers: random.Random) -> None:
        cluster.processes[name].signal(signal.SIGKILL)
        cluster.wait(0.1)

    return inject


def suspend(name: str, seconds: float) -> Fault:
    """Suspend a worker with its messages, and resume it when others may have processed them."""

    def inject(cluster: Cluster, random_numbers: random.Random) -> None:
        process = cluster.processes[name]
        process.signal(signal.SIGSTOP)
        cluster.wait(seconds)
        process.signal(signal.SIGCONT)

    return inject


def kill_with_a_prefetched_message(cluster: Cluster, random_numbers: random.Random) -> None:
    """Suspend an idle returns worker, let a message arrive, and SIGKILL the worker. Starts the stations itself."""
    process = cluster.processes["returns"]
    if isinstance(cluster.broker, Valkey):
        client = cluster.broker.client
        cluster.wait_until(lambda: _are_blocked(client), "a worker does not wait for messages", 30)
    else:
        cluster.wait(3)
    process.signal(signal.SIGSTOP)
    cluster.start_stations()
    cluster.wait_until(lambda: cluster.journaled() >= len(cluster.codes), "a station does not scan", 30)
    cluster.wait(0.7)
    process.signal(signal.SIGKILL)


def _are_blocked(client: "redis.Redis") -> bool:
    """True when all three workers are blocked until a message arrives; the atomic transport blocks in BLMOVE."""
    blocked = [connection["cmd"] for connection in client.client_list() if "b" in connection["flags"]]
    return len([command for command in blocked if command in {"blmove", "brpop"}]) >= 3


def kill_broker_with_backlog(cluster: Cluster, random_numbers: random.Random) -> None:
    """SIGKILL the server while scans wait in it, and restart it."""
    with _returns_suspended(cluster):
        backlog = min(cluster.setup.scans, cluster.journaled() + 4)
        cluster.wait_until(lambda: cluster.journaled() >= backlog, "a station does not scan", 30)
        cluster.wait(0.3)
        cluster.broker.kill()
        cluster.wait(0.5)
        cluster.broker.start()


@contextmanager
def _returns_suspended(cluster: Cluster) -> Iterator[None]:
    workers = [process for name, process in cluster.processes.items() if name.startswith("returns")]
    for process in workers:
        process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in workers:
            process.signal(signal.SIGCONT)


def pause_broker(seconds: float) -> Fault:
    """Suspend the server: its port is open and does not respond."""

    def inject(cluster: Cluster, random_numbers: random.Random) -> None:
        cluster.broker.pause()
        try:
            cluster.wait(seconds)
        finally:
            cluster.broker.resume()

    return inject


def make_database_unavailable(seconds: float) -> Fault:
    """Crash and restart PostgreSQL, then its PgBouncer; hold the write lock of a SQLite file for `seconds`."""

    def inject(cluster: Cluster, random_numbers: random.Random) -> None:
        if cluster.setup.database != "sqlite":
            cluster.servers.postgres().restart()
            if cluster.setup.database == "pgbouncer":
                cluster.servers.pgbouncer().kill()
                cluster.servers.pgbouncer().start()
            return
        connection = sqlite3.connect(cluster.folder / "bookdrop.db", timeout=30, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            cluster.wait(seconds)
            connection.execute("ROLLBACK")
        finally:
            connection.close()

    return inject


def network(kind: str, whose: str, seconds: float = 0.0) -> Fault:
    """A network fault: `kind` is a method of `Proxy`; `whose` is stations, workers, or database (the workers' to it)."""

    def inject(cluster: Cluster, random_numbers: random.Random) -> None:
        proxy: Proxy | None = getattr(cluster, f"to_{whose}")
        if proxy is None:
            return
        getattr(proxy, kind)()
        if kind in {"stall", "refuse"}:
            try:
                cluster.wait(seconds)
            finally:
                proxy.resume()

    return inject


def fill_spool_disk(seconds: float) -> Fault:
    """Fill the disk of the slips for a while: no slip is lost, and Returns continue."""

    def inject(cluster: Cluster, random_numbers: random.Random) -> None:
        with _full_disk(cluster, "spool", "printing"):
            cluster.wait(seconds)

    return inject


def fill_journal_disk(seconds: float) -> Fault:
    """Fill the disk of a station's journal for a while: the station rejects scans, and staff scan again."""

    def inject(cluster: Cluster, random_numbers: random.Random) -> None:
        code = random_numbers.choice(cluster.codes)
        with _full_disk(cluster, "journals", code):
            cluster.wait(seconds)

    return inject


@contextmanager
def _full_disk(cluster: Cluster, folder: str, name: str) -> Iterator[None]:
    """Fill the small disk at `folder` of the run. Without one, limit the file size of the process `name` instead."""
    disk = cluster.folder / folder
    if disk.is_mount():
        with contextlib.suppress(OSError), (disk / ".filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            (disk / ".filler").unlink()
        return
    pids = _group(cluster.processes[name].pid)
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


def none(cluster: Cluster, random_numbers: random.Random) -> None:
    """No fault. A violation in such a run occurs in every run."""


def under_load(fault: Fault) -> Fault:
    """Inject the fault when the stations are at work and some replies have arrived."""

    def inject(cluster: Cluster, random_numbers: random.Random) -> None:
        cluster.wait_until(lambda: cluster.replied() >= 3, "no event gets a reply")
        fault(cluster, random_numbers)

    return inject


def in_sequence(*faults: Fault) -> Fault:
    """Inject faults one after the other, without waiting for recovery between them."""

    def inject(cluster: Cluster, random_numbers: random.Random) -> None:
        for fault in faults:
            fault(cluster, random_numbers)

    return inject
