# SPDX-License-Identifier: Apache-2.0
"""One side of `interleaved.py`: a worker, and a station that measures blocks of scans on request.

Standard input has a line `latency N` or `drain N` for each block; standard output gets a line of JSON.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import IO

from environment import Station, open_environment, workers

WARM_UP = 4
"""Blocks of lone scans before the first measured one."""


def cpu_seconds(pids: list[int]) -> float:
    """Processor time of the processes and of their children, in seconds (Linux)."""
    total = 0
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for process in (str(pid), *children):
            for thread in Path(f"/proc/{process}/task").iterdir():
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def serve(chosen: argparse.Namespace, commands: IO[str]) -> None:
    """Measure a block for each line of `commands`."""
    scans = WARM_UP * chosen.scans + chosen.blocks * (chosen.scans + chosen.backlog)
    with open_environment(chosen.database, chosen.rabbitmq, 1, scans) as environment:
        broker = chosen.rabbitmq or f"redis+socket://{environment.valkey}"
        station = Station(environment, broker, "main-desk-1")
        with workers(environment, "batch", broker) as pids:
            latencies(station, WARM_UP * chosen.scans)
            print("ready", flush=True)
            for line in commands:
                what, number = line.split()
                before = cpu_seconds(pids)
                result = latencies(station, int(number)) if what == "latency" else drain(station, int(number))
                cpu = (cpu_seconds(pids) - before) * 1000 / int(number)
                print(json.dumps({what: result, f"cpu of {what}": cpu}), flush=True)
        station.close()


def latencies(station: Station, scans: int) -> float:
    """Median of the milliseconds from scan to reply; each scan waits for the reply before it."""
    found = []
    for event_id, payload in [station.next_scan() for _ in range(scans)]:
        began = time.perf_counter()
        station.send(event_id, payload)
        station.receive()
        found.append((time.perf_counter() - began) * 1000)
    return statistics.median(found)


def drain(station: Station, scans: int) -> float:
    """Replies per second, from the last scan published to the last reply."""
    for event_id, payload in [station.next_scan() for _ in range(scans)]:
        station.send(event_id, payload)
    began = time.perf_counter()
    for _ in range(scans):
        station.receive()
    return scans / (time.perf_counter() - began)


def main() -> None:
    """Read the options that `interleaved.py` passes."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--database", required=True)
    parser.add_argument("--rabbitmq")
    for name in ("--blocks", "--scans", "--backlog"):
        parser.add_argument(name, type=int, required=True)
    serve(parser.parse_args(), sys.stdin)


if __name__ == "__main__":
    main()
