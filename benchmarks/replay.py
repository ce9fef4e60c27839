# SPDX-License-Identifier: Apache-2.0
"""How fast a desk makes up for an outage: thousands of held scans, from the journal through real workers to answers.

drain            the yardstick: as many ready scans lie in the queue, then the workers begin
reconnected      a station whose broker was away while it scanned, and comes back
started again    a station that was closed during the outage, and is opened when it is over

python benchmarks/replay.py --held 5000
python benchmarks/replay.py --database postgresql+psycopg:///postgres --rabbitmq amqp://guest:guest@127.0.0.1//bench
"""

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from desk import settings
from figures import Bound, Figures, add, options, progress, run
from place import PATIENCE, Place, place, workers
from scans import drain, latencies

from schemas.circulation_events import Reply
from stations.client import StationClient
from stations.journal.events import Entry

AS_FAST = 0.8
"""Of the drain rate: what is wanted of a replay."""


class Answers:
    """Counts answers, and tells when all are there."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self.times: list[float] = []
        self._all = threading.Event()

    def hear(self, _entry: Entry, reply: Reply) -> None:
        """Take an answer, on the client's thread."""
        if reply.outcome != "returned":
            raise RuntimeError(f"not returned: {reply}")
        self.times.append(time.perf_counter())
        if len(self.times) == self._wanted:
            self._all.set()

    def wait(self) -> None:
        """Raises `TimeoutError` when they stay away."""
        if not self._all.wait(PATIENCE):
            raise TimeoutError(f"{len(self.times)} of {self._wanted} answers came")


@contextmanager
def outage(here: Place, broker: str, held: int, answers: Answers, number: int) -> Iterator[tuple[StationClient, Path]]:
    """A client that has taken `held` scans without a broker; and the path at which a Valkey would be found."""
    socket = here.folder / f"away-{number}.sock"
    away = f"redis+socket://{socket}" if broker.startswith("redis") else "amqp://127.0.0.1:1//"
    chosen = settings(away, here.folder / f"outage-{number}.journal")
    with StationClient(chosen, on_reply=answers.hear) as client:
        for _ in range(held):
            client.scan(next(here.barcodes), print_slip=False)
        yield client, socket


def reconnected(here: Place, broker: str, held: int, number: int) -> dict[str, float]:
    """The broker comes back to a running station."""
    answers = Answers(held)
    with outage(here, broker, held, answers, number) as (_, socket), workers(here, "batch", broker):
        latencies(here, broker, 2, 10)
        course = Course(answers)
        socket.symlink_to(here.valkey)
        return course.end()


def started_again(here: Place, broker: str, held: int, number: int) -> dict[str, float]:
    """A station starts with a full journal, and the broker is there."""
    with outage(here, broker, held, Answers(held), number) as (client, _):
        pass
    time.sleep(client.settings.retry_interval_seconds)  # an outage is long; the last scan is as due as the first
    answers = Answers(held)
    with ExitStack() as stack:
        stack.enter_context(workers(here, "batch", broker))
        latencies(here, broker, 2, 10)
        chosen = settings(broker, here.folder / f"outage-{number}.journal")
        course = Course(answers)
        stack.enter_context(StationClient(chosen, on_reply=answers.hear))
        return course.end()


class Course:
    """What became of a replay, from the moment the broker is there."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._began, self._worked = time.perf_counter(), time.process_time()

    def end(self) -> dict[str, float]:
        """When all answers are there: the figures."""
        self._answers.wait()
        worked = time.process_time() - self._worked
        first, *_, last = self._answers.times
        count = len(self._answers.times)
        return {
            "returns/s": (count - 1) / (last - first),
            "all answered after s": last - self._began,
            "the desk's CPU, ms a scan": worked / count * 1000,
        }


def measure(chosen: argparse.Namespace) -> Figures:
    """All candidates, in turns."""
    found: Figures = {}
    needed = chosen.rounds * (2 if chosen.rabbitmq else 1) * (3 * chosen.held + 40)
    with place(chosen.database, chosen.rabbitmq, 2, needed) as here:
        on_valkey = f"redis+socket://{here.valkey}"
        number = 0
        for turn in range(chosen.rounds):
            for name, broker in {"Valkey": on_valkey, "RabbitMQ": chosen.rabbitmq}.items():
                if not broker:
                    continue
                rate = drain(here, "batch", broker, chosen.held)
                add(found, "drain", f"{name}, returns/s", [rate])
                progress.print(f"round {turn + 1} of {chosen.rounds}, {name}: drain {rate:,.0f}/s")
                ways = {"reconnected": reconnected, "started again": started_again}
                for way, replay in ways.items():
                    if way == "reconnected" and name == "RabbitMQ":
                        continue  # only a Valkey's socket can be taken away and given back from here
                    number += 1
                    for what, value in replay(here, broker, chosen.held, number).items():
                        add(found, way, f"{name}, {what}", [value])
                        progress.print(f"  {way}: {what} {value:,.2f}")
    return found


def bounds(_database: str) -> list[Bound]:
    """What bookdrop promises of itself."""
    return [
        Bound(way, f"{broker}, returns/s", "at least", AS_FAST)
        for broker in ("Valkey", "RabbitMQ")
        for way in ("reconnected", "started again")
    ]


def main() -> None:
    """Measure and tell."""
    parser = options(__doc__, __file__, uses=("database", "rabbitmq"))
    parser.add_argument("--held", type=int, default=5_000, help="scans in the journal")
    parser.set_defaults(rounds=1)
    run(parser, measure, bounds)


if __name__ == "__main__":
    main()
