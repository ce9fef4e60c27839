# SPDX-License-Identifier: Apache-2.0
"""What a worker costs: its memory over many scans, and its processor time when there is nothing to do.

A real `bookdrop worker returns` with two processes does a stream of scans; memory is read from /proc every second, so
this needs Linux. The processes are the parent and its two children; each is told by itself.

    python benchmarks/worker.py                             20,000 scans, some minutes
    python benchmarks/worker.py --scans 100000 --database postgresql+psycopg:///postgres
"""

import argparse
import os
import statistics
import threading
import time
from pathlib import Path

from figures import Bound, Figures, add, options, progress, run
from loading import load
from place import Desk, Place, place, workers

AHEAD = 200
"""Scans that are in the queue at once."""
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and its children, the parent first."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def memory(pid: int) -> float:
    """Resident memory of a process, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


def busy(pids: list[int]) -> float:
    """Processor seconds that processes have used since they began."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def idle(pid: int, seconds: float) -> float:
    """Share of one processor that a worker takes while nothing comes, in per cent."""
    pids = family(pid)
    before, began = busy(pids), time.monotonic()
    time.sleep(seconds)
    return (busy(pids) - before) / (time.monotonic() - began) * 100


def feed(desk: Desk, scans: int) -> None:
    """Keep `AHEAD` scans in the queue until all are answered."""
    waiting = 0
    for number in range(1, scans + 1):
        desk.send(*desk.envelope())
        waiting += 1
        if waiting >= AHEAD:
            desk.hear()
            waiting -= 1
        if number % 5_000 == 0:
            progress.print(f"  {number:,} of {scans:,} scans")
    for _ in range(waiting):
        desk.hear()


def watch(pid: int, samples: dict[int, list[float]], over: threading.Event) -> None:
    """Note the memory of each process, every second."""
    while not over.wait(1.0):
        for each in family(pid):
            samples.setdefault(each, []).append(memory(each))


def growth(samples: list[float]) -> float:
    """How much more memory a process has in the last fifth of the time than in the second fifth, in per cent.

    The first fifth is left out: connections, caches and the first of everything belong to a start.
    """
    fifth = max(1, len(samples) // 5)
    before, after = statistics.median(samples[fifth : 2 * fifth] or samples), statistics.median(samples[-fifth:])
    return (after / before - 1) * 100


def measure(chosen: argparse.Namespace) -> Figures:
    """On each broker: idle, the stream, idle again."""
    found: Figures = {}
    brokers = 2 if chosen.rabbitmq else 1
    with place(chosen.database, chosen.rabbitmq, 1, 0) as here:
        needed = (chosen.scans + 100) * chosen.rounds * brokers
        here.barcodes = load(here.database_url, needed, on_loan=needed)
        for turn in range(chosen.rounds):
            for name, broker in {"Valkey": f"redis+socket://{here.valkey}", "RabbitMQ": here.rabbitmq}.items():
                if broker:
                    progress.print(f"round {turn + 1} of {chosen.rounds}, {name}")
                    _one_worker(here, name, broker, chosen, found)
    return found


def _one_worker(here: Place, name: str, broker: str, chosen: argparse.Namespace, found: Figures) -> None:
    desk = Desk(here, broker, "main-desk-1")
    with workers(here, "batch", broker) as [pid]:
        feed(desk, 100)  # so that it has begun, and has its connections
        time.sleep(3)
        add(found, name, "idle before, % of a CPU", [idle(pid, chosen.idle_seconds)])
        samples: dict[int, list[float]] = {}
        over = threading.Event()
        watcher = threading.Thread(target=watch, args=(pid, samples, over))
        watcher.start()
        began = time.monotonic()
        feed(desk, chosen.scans)
        add(found, name, "stream, returns/s", [chosen.scans / (time.monotonic() - began)])
        over.set()
        watcher.join()
        time.sleep(3)
        add(found, name, "idle after, % of a CPU", [idle(pid, chosen.idle_seconds)])
    desk.close()
    for number, (each, of_one) in enumerate(samples.items()):
        who = "parent" if each == pid else f"child {number}"
        add(found, name, f"{who}, MB", of_one)  # one number a second: the JSON shows its course
        add(found, name, f"{who}, most MB", [max(of_one)])
        add(found, name, f"{who}, growth %", [growth(of_one)])


def bounds(_database: str) -> list[Bound]:
    """What bookdrop promises of itself."""
    kept = []
    for broker in ("Valkey", "RabbitMQ"):
        for who in ("parent", "child 1", "child 2"):
            kept.append(Bound(broker, f"{who}, most MB", "at most", 120, of=None))
            kept.append(Bound(broker, f"{who}, growth %", "at most", 2, of=None))
        kept += [
            Bound(broker, "idle before, % of a CPU", "at most", 1, of=None),
            Bound(broker, "idle after, % of a CPU", "at most", 1, of=None),
        ]
    return kept


def main() -> None:
    """Measure and tell."""
    parser = options(__doc__, __file__, uses=("database", "rabbitmq"))
    parser.add_argument("--scans", type=int, default=20_000)
    parser.add_argument("--idle-seconds", type=float, default=20)
    parser.set_defaults(rounds=1)
    run(parser, measure, bounds)


if __name__ == "__main__":
    main()
