# SPDX-License-Identifier: Apache-2.0
"""How fast a scan is answered, and how fast a backlog is gone, as ratios to a bare loop in the same interleaved run.

The floor is a list-pop loop in two processes that runs the same handler one event at a time: no Celery, no
acknowledgement. Everything else is the real thing: `bookdrop worker returns` with two processes and monitoring events on.
Rounds alternate between the candidates, so that what else the machine does hits all of them alike.

    python benchmarks/scans.py                              Valkey and SQLite
    python benchmarks/scans.py --database postgresql+psycopg:///postgres --rabbitmq amqp://guest:guest@127.0.0.1//bench
    python benchmarks/scans.py --stations 1,32 --rounds 5 --json today.json --compare before.json
    python benchmarks/scans.py --choices                    and other pools and prefetch counts than the chosen ones
    python benchmarks/scans.py --against v1.0.0             that commit and this checkout, round by round in turns
"""

import argparse
import threading
import time

from figures import Bound, Figures, add, options, progress, run, told
from place import Desk, Place, place, workers

FEWEST_OF_ONE = 300
"""Scans of a single station in each round: fewer would say nothing of the slowest one in a hundred."""
FLOOR = "floor"
CHOICES = ("solo", "prefetch 4", "prefetch 32", "prefetch 128")
"""What could have been chosen: two solo processes instead of a pool, and other prefetch counts a process than 64."""


def latencies(here: Place, broker: str, stations: int, scans: int) -> list[float]:
    """Closed loop: each station scans, waits for its answer, scans again. Seconds from scan to reply."""
    found: list[float] = []
    wrong: list[BaseException] = []
    lock = threading.Lock()

    def shift(number: int) -> None:
        own = []
        try:
            desk = Desk(here, broker, f"main-desk-{number}")
            with lock:
                ready = [desk.envelope() for _ in range(scans)]
            for event_id, payload in ready:
                began = time.perf_counter()
                desk.send(event_id, payload)
                if desk.hear() != event_id:
                    raise RuntimeError("an answer to another scan")  # noqa: TRY301 - told in the main thread
                own.append(time.perf_counter() - began)
            desk.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, the main thread raises it
            wrong.append(error)
        with lock:
            found.extend(own)

    threads = [threading.Thread(target=shift, args=(number,)) for number in range(1, stations + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
    return found


def drain(here: Place, kind: str, broker: str, scans: int) -> float:
    """Returns a second: a backlog lies in the queue, then the workers begin. From the first answer to the last."""
    desk = Desk(here, broker, "main-desk-1")
    for event_id, payload in [desk.envelope() for _ in range(scans)]:
        desk.send(event_id, payload)
    with workers(here, kind, broker):
        desk.hear()
        began = time.perf_counter()
        for _ in range(scans - 1):
            desk.hear()
        seconds = time.perf_counter() - began
    desk.close()
    return (scans - 1) / seconds


def shifts(scans: int, stations: list[int]) -> dict[int, int]:
    """How many scans each station makes in a round, by the number of stations at work."""
    return {number: max(FEWEST_OF_ONE if number == 1 else 4, scans // number) for number in stations}


def measure(chosen: argparse.Namespace) -> Figures:
    """All candidates, in turns."""
    per_station = shifts(chosen.scans // 4, [1]) | shifts(chosen.scans, [n for n in chosen.stations if n > 1])
    kinds = {"plain Celery": "plain", "batching": "batch"}
    of_one = 20 + sum(number * each for number, each in per_station.items()) + chosen.scans
    others = CHOICES if chosen.choices else ()
    brokers = 2 if chosen.rabbitmq else 1
    needed = (1 + brokers * (len(kinds) + len(others))) * chosen.rounds * of_one
    found: Figures = {}
    progress.print(f"loading {needed:,} requests")
    with place(chosen.database, chosen.rabbitmq, max(2, *per_station), needed) as here:
        on_valkey = f"redis+socket://{here.valkey}"
        candidates = {FLOOR: ("floor", on_valkey)}
        candidates |= {f"Valkey, {name}": (kind, on_valkey) for name, kind in kinds.items()}
        candidates |= {f"Valkey, {name}": (name, on_valkey) for name in others}
        if chosen.rabbitmq:
            candidates |= {f"RabbitMQ, {name}": (kind, chosen.rabbitmq) for name, kind in kinds.items()}
            candidates |= {f"RabbitMQ, {name}": (name, chosen.rabbitmq) for name in others}
        for number in range(chosen.rounds):
            for name, (kind, broker) in candidates.items():
                this: Figures = {}
                with workers(here, kind, broker):
                    latencies(here, broker, 2, 10)  # connections, caches
                    for stations in sorted(chosen.stations):
                        samples = latencies(here, broker, stations, per_station[stations])
                        add(this, name, _latency(stations), [sample * 1000 for sample in samples])
                add(this, name, "drain, returns/s", [drain(here, kind, broker, chosen.scans)])
                for what, numbers in this[name].items():
                    add(found, name, what, numbers)
                words = ", ".join(f"{what} {value:,.1f}" for what, value in told(this)[name].items())
                progress.print(f"round {number + 1} of {chosen.rounds}  {name}: {words}")
    return found


def _latency(stations: int) -> str:
    return f"{stations} station{'s' if stations > 1 else ''}, ms"


def bounds(database: str) -> list[Bound]:
    """What bookdrop promises of itself."""
    kept = []
    for broker in ("Valkey", "RabbitMQ"):
        name = f"{broker}, batching"
        drained = 2.0 if database.startswith("sqlite") else 4.0 if broker == "Valkey" else 3.0
        kept += [
            Bound(name, "1 station, p50 ms", "at most", 1.6),
            Bound(name, "1 station, p99 ms", "at most", 2.5),
            Bound(name, "32 stations, p50 ms", "at most", 0.6),
            Bound(name, "drain, returns/s", "at least", drained),
        ]
    return kept


def main() -> None:
    """Measure and tell."""
    parser = options(__doc__, __file__, uses=("database", "rabbitmq"))
    parser.add_argument(
        "--stations", default=[1, 32, 128], type=lambda words: [int(word) for word in words.split(",")],
        help="how many stations at once, such as 1,32,128",
    )  # fmt: skip
    parser.add_argument("--scans", type=int, default=1000, help="in each backlog")
    parser.add_argument("--choices", action="store_true", help="also measure what was not chosen: pool, prefetch")
    run(parser, measure, bounds)


if __name__ == "__main__":
    main()
