# SPDX-License-Identifier: Apache-2.0
"""Latency of a scan and drain rate of a backlog, as ratios to a bare loop in the same interleaved run.

The floor is a loop in two processes that pops a list and runs the same handler, one event at a time, without Celery or
acknowledgement. All other candidates are real workers: `bookdrop worker returns` with two processes and monitoring events.
Rounds alternate between the candidates, so that other load on the machine affects all of them alike.

    python benchmarks/scans.py                              Valkey and SQLite
    python benchmarks/scans.py --database postgresql+psycopg:///postgres --rabbitmq amqp://guest:guest@127.0.0.1//bench
    python benchmarks/scans.py --stations 1,32 --rounds 5 --json today.json --compare before.json
    python benchmarks/scans.py --choices                    also with the rejected pools and prefetch counts
    python benchmarks/scans.py --against v1.0.0             that commit and this checkout, round by round in turns
"""

import argparse
import threading
import time

from environment import Environment, Station, open_environment, workers
from figures import Bound, Figures, add, options, progress, run, summarize

MIN_SCANS_OF_ONE = 300
"""Lowest number of scans of a single station in each round; fewer give no reliable p99."""
FLOOR = "floor"
REJECTED = ("solo", "prefetch 4", "prefetch 32", "prefetch 128")
"""Rejected settings: two solo processes instead of a pool, and prefetch counts other than 64 for each process."""


def latencies(environment: Environment, broker: str, stations: int, scans: int) -> list[float]:
    """Seconds from scan to reply, in a closed loop: each station waits for its reply before the next scan."""
    found: list[float] = []
    errors: list[BaseException] = []
    lock = threading.Lock()

    def run_station(number: int) -> None:
        own = []
        try:
            station = Station(environment, broker, f"main-desk-{number}")
            with lock:
                ready = [station.next_scan() for _ in range(scans)]
            for event_id, payload in ready:
                began = time.perf_counter()
                station.send(event_id, payload)
                if station.receive() != event_id:
                    raise RuntimeError("a reply to another scan")  # noqa: TRY301 - raised in the main thread
                own.append(time.perf_counter() - began)
            station.close()
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            errors.append(error)
        with lock:
            found.extend(own)

    threads = [threading.Thread(target=run_station, args=(number,)) for number in range(1, stations + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


def drain(environment: Environment, kind: str, broker: str, scans: int) -> float:
    """Returns per second, from the first reply to the last, for a backlog that is queued before the workers start."""
    station = Station(environment, broker, "main-desk-1")
    for event_id, payload in [station.next_scan() for _ in range(scans)]:
        station.send(event_id, payload)
    with workers(environment, kind, broker):
        station.receive()
        began = time.perf_counter()
        for _ in range(scans - 1):
            station.receive()
        seconds = time.perf_counter() - began
    station.close()
    return (scans - 1) / seconds


def scans_per_station(scans: int, stations: list[int]) -> dict[int, int]:
    """Scans of each station in a round, by the number of concurrent stations."""
    return {number: max(MIN_SCANS_OF_ONE if number == 1 else 4, scans // number) for number in stations}


def measure(chosen: argparse.Namespace) -> Figures:
    """Measure all candidates in turns."""
    per_station = scans_per_station(chosen.scans // 4, [1]) | scans_per_station(
        chosen.scans, [n for n in chosen.stations if n > 1]
    )
    kinds = {"plain Celery": "plain", "batching": "batch"}
    per_candidate = 20 + sum(number * each for number, each in per_station.items()) + chosen.scans
    others = REJECTED if chosen.choices else ()
    brokers = 2 if chosen.rabbitmq else 1
    needed = (1 + brokers * (len(kinds) + len(others))) * chosen.rounds * per_candidate
    found: Figures = {}
    progress.print(f"loading {needed:,} requests")
    with open_environment(chosen.database, chosen.rabbitmq, max(2, *per_station), needed) as environment:
        on_valkey = f"redis+socket://{environment.valkey}"
        candidates = {FLOOR: ("floor", on_valkey)}
        candidates |= {f"Valkey, {name}": (kind, on_valkey) for name, kind in kinds.items()}
        candidates |= {f"Valkey, {name}": (name, on_valkey) for name in others}
        if chosen.rabbitmq:
            candidates |= {f"RabbitMQ, {name}": (kind, chosen.rabbitmq) for name, kind in kinds.items()}
            candidates |= {f"RabbitMQ, {name}": (name, chosen.rabbitmq) for name in others}
        for number in range(chosen.rounds):
            for name, (kind, broker) in candidates.items():
                this: Figures = {}
                with workers(environment, kind, broker):
                    latencies(environment, broker, 2, 10)  # warm up connections and caches
                    for stations in sorted(chosen.stations):
                        samples = latencies(environment, broker, stations, per_station[stations])
                        add(this, name, _latency(stations), [sample * 1000 for sample in samples])
                add(this, name, "drain, returns/s", [drain(environment, kind, broker, chosen.scans)])
                for what, numbers in this[name].items():
                    add(found, name, what, numbers)
                summary = ", ".join(f"{what} {value:,.1f}" for what, value in summarize(this)[name].items())
                progress.print(f"round {number + 1} of {chosen.rounds}  {name}: {summary}")
    return found


def _latency(stations: int) -> str:
    return f"{stations} station{'s' if stations > 1 else ''}, ms"


def bounds(database: str) -> list[Bound]:
    """The limits of bookdrop."""
    limits = []
    for broker in ("Valkey", "RabbitMQ"):
        name = f"{broker}, batching"
        drained = 2.0 if database.startswith("sqlite") else 4.0 if broker == "Valkey" else 3.0
        limits += [
            Bound(name, "1 station, p50 ms", "at most", 1.6),
            Bound(name, "1 station, p99 ms", "at most", 2.5),
            Bound(name, "32 stations, p50 ms", "at most", 0.6),
            Bound(name, "drain, returns/s", "at least", drained),
        ]
    return limits


def main() -> None:
    """Measure and report."""
    parser = options(__doc__, __file__, uses=("database", "rabbitmq"))
    parser.add_argument(
        "--stations", default=[1, 32, 128], type=lambda text: [int(number) for number in text.split(",")],
        help="numbers of concurrent stations, for example 1,32,128",
    )  # fmt: skip
    parser.add_argument("--scans", type=int, default=1000, help="scans in each backlog")
    parser.add_argument("--choices", action="store_true", help="also measure the rejected pools and prefetch counts")
    run(parser, measure, bounds)


if __name__ == "__main__":
    main()
