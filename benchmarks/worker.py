# SPDX-License-Identifier: Apache-2.0
"""Memory of a worker over many scans, and its processor time while it is idle.

A real `bookdrop worker returns` with two processes processes a stream of scans. The benchmark reads the memory from /proc
every second, so it needs Linux. It reports the parent and its two children separately.

    python benchmarks/worker.py                             20,000 scans, some minutes
    python benchmarks/worker.py --scans 100000 --database postgresql+psycopg:///postgres
"""

import argparse
import os
import statistics
import threading
import time
from pathlib import Path

from environment import Environment, Station, open_environment, workers
from figures import Bound, Figures, add, options, progress, run
from loading import load

QUEUE_LENGTH = 200
"""Scans in the queue at any time."""
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


def process_and_children(pid: int) -> list[int]:
    """A process and its children, the parent first."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def memory(pid: int) -> float:
    """Resident memory of a process, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


def cpu_seconds(pids: list[int]) -> float:
    """Processor seconds that processes have used since their start."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def idle(pid: int, seconds: float) -> float:
    """Share of one processor that a worker uses without events, in per cent."""
    pids = process_and_children(pid)
    before, began = cpu_seconds(pids), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(pids) - before) / (time.monotonic() - began) * 100


def feed(station: Station, scans: int) -> None:
    """Keep `QUEUE_LENGTH` scans in the queue until each has its reply."""
    waiting = 0
    for number in range(1, scans + 1):
        station.send(*station.next_scan())
        waiting += 1
        if waiting >= QUEUE_LENGTH:
            station.receive()
            waiting -= 1
        if number % 5_000 == 0:
            progress.print(f"  {number:,} of {scans:,} scans")
    for _ in range(waiting):
        station.receive()


def watch(pid: int, samples: dict[int, list[float]], stopped: threading.Event) -> None:
    """Record the memory of each process, every second."""
    while not stopped.wait(1.0):
        for process in process_and_children(pid):
            samples.setdefault(process, []).append(memory(process))


def growth(samples: list[float]) -> float:
    """Growth of a process's memory from the second fifth of the time to the last, in per cent.

    The first fifth is ignored, because connections and caches are part of the start.
    """
    fifth = max(1, len(samples) // 5)
    before, after = statistics.median(samples[fifth : 2 * fifth] or samples), statistics.median(samples[-fifth:])
    return (after / before - 1) * 100


def measure(chosen: argparse.Namespace) -> Figures:
    """Measure on each broker: idle, with the stream, idle again."""
    found: Figures = {}
    brokers = 2 if chosen.rabbitmq else 1
    with open_environment(chosen.database, chosen.rabbitmq, 1, 0) as environment:
        needed = (chosen.scans + 100) * chosen.rounds * brokers
        environment.barcodes = load(environment.database_url, needed, on_loan=needed)
        for turn in range(chosen.rounds):
            for name, broker in {
                "Valkey": f"redis+socket://{environment.valkey}",
                "RabbitMQ": environment.rabbitmq,
            }.items():
                if broker:
                    progress.print(f"round {turn + 1} of {chosen.rounds}, {name}")
                    _measure_worker(environment, name, broker, chosen, found)
    return found


def _measure_worker(
    environment: Environment, name: str, broker: str, chosen: argparse.Namespace, found: Figures
) -> None:
    station = Station(environment, broker, "main-desk-1")
    with workers(environment, "batch", broker) as [pid]:
        feed(station, 100)  # the worker has started and has its connections
        time.sleep(3)
        add(found, name, "idle before, % of a CPU", [idle(pid, chosen.idle_seconds)])
        samples: dict[int, list[float]] = {}
        stopped = threading.Event()
        watcher = threading.Thread(target=watch, args=(pid, samples, stopped))
        watcher.start()
        began = time.monotonic()
        feed(station, chosen.scans)
        add(found, name, "stream, returns/s", [chosen.scans / (time.monotonic() - began)])
        stopped.set()
        watcher.join()
        time.sleep(3)
        add(found, name, "idle after, % of a CPU", [idle(pid, chosen.idle_seconds)])
    station.close()
    for number, (process, of_process) in enumerate(samples.items()):
        role = "parent" if process == pid else f"child {number}"
        add(found, name, f"{role}, MB", of_process)  # one number per second, for the JSON file
        add(found, name, f"{role}, most MB", [max(of_process)])
        add(found, name, f"{role}, growth %", [growth(of_process)])


def bounds(_database: str) -> list[Bound]:
    """The limits of bookdrop."""
    limits = []
    for broker in ("Valkey", "RabbitMQ"):
        for role in ("parent", "child 1", "child 2"):
            limits.append(Bound(broker, f"{role}, most MB", "at most", 120, of=None))
            limits.append(Bound(broker, f"{role}, growth %", "at most", 2, of=None))
        limits += [
            Bound(broker, "idle before, % of a CPU", "at most", 1, of=None),
            Bound(broker, "idle after, % of a CPU", "at most", 1, of=None),
        ]
    return limits


def main() -> None:
    """Measure and report."""
    parser = options(__doc__, __file__, uses=("database", "rabbitmq"))
    parser.add_argument("--scans", type=int, default=20_000)
    parser.add_argument("--idle-seconds", type=float, default=20)
    parser.set_defaults(rounds=1)
    run(parser, measure, bounds)


if __name__ == "__main__":
    main()
