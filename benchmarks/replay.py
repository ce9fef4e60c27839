# SPDX-License-Identifier: Apache-2.0
"""Rate at which a station catches up after an outage: thousands of held scans, from the journal to their replies.

drain            the reference: as many ready scans are in the queue before the workers start
reconnected      a station whose broker was unreachable while it scanned, and becomes reachable
restarted        a station that was closed during the outage, and is opened afterwards

python benchmarks/replay.py --held 5000
python benchmarks/replay.py --database postgresql+psycopg:///postgres --rabbitmq amqp://guest:guest@127.0.0.1//bench
"""

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from environment import REPLY_TIMEOUT, Environment, open_environment, workers
from figures import Bound, Figures, add, options, progress, run
from scans import drain, latencies
from station import settings

from schemas.circulation_events import Reply
from stations.client import StationClient
from stations.journal.events import Entry

DRAIN_SHARE = 0.8
"""Lowest rate of a replay, as a share of the drain rate."""


class ReplyCounter:
    """Counts replies, and waits until all have arrived."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self.times: list[float] = []
        self._all = threading.Event()

    def on_reply(self, _entry: Entry, reply: Reply) -> None:
        """Count a reply, on the client's thread."""
        if reply.outcome != "returned":
            raise RuntimeError(f"not returned: {reply}")
        self.times.append(time.perf_counter())
        if len(self.times) == self._expected:
            self._all.set()

    def wait(self) -> None:
        """Wait for all replies. Raises `TimeoutError`."""
        if not self._all.wait(REPLY_TIMEOUT):
            raise TimeoutError(f"{len(self.times)} of {self._expected} replies arrived")


@contextmanager
def outage(
    environment: Environment, broker: str, held: int, replies: ReplyCounter, number: int
) -> Iterator[tuple[StationClient, Path]]:
    """Yield a client that holds `held` scans without a broker, and the path of the socket that it connects to."""
    socket = environment.folder / f"unreachable-{number}.sock"
    unreachable = f"redis+socket://{socket}" if broker.startswith("redis") else "amqp://127.0.0.1:1//"
    chosen = settings(unreachable, environment.folder / f"outage-{number}.journal")
    with StationClient(chosen, on_reply=replies.on_reply) as client:
        for _ in range(held):
            client.scan(next(environment.barcodes), print_slip=False)
        yield client, socket


def reconnected(environment: Environment, broker: str, held: int, number: int) -> dict[str, float]:
    """The broker becomes reachable for a running station."""
    replies = ReplyCounter(held)
    with outage(environment, broker, held, replies, number) as (_, socket), workers(environment, "batch", broker):
        latencies(environment, broker, 2, 10)
        replay = ReplayTimer(replies)
        socket.symlink_to(environment.valkey)
        return replay.wait()


def restarted(environment: Environment, broker: str, held: int, number: int) -> dict[str, float]:
    """A station starts with a full journal while the broker is reachable."""
    with outage(environment, broker, held, ReplyCounter(held), number) as (client, _):
        pass
    time.sleep(client.settings.retry_interval_seconds)  # outages are long, so the last scan is due like the first
    replies = ReplyCounter(held)
    with ExitStack() as stack:
        stack.enter_context(workers(environment, "batch", broker))
        latencies(environment, broker, 2, 10)
        chosen = settings(broker, environment.folder / f"outage-{number}.journal")
        replay = ReplayTimer(replies)
        stack.enter_context(StationClient(chosen, on_reply=replies.on_reply))
        return replay.wait()


class ReplayTimer:
    """Times a replay, from the moment at which the broker is reachable."""

    def __init__(self, replies: ReplyCounter) -> None:
        self._replies = replies
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def wait(self) -> dict[str, float]:
        """Wait for all replies; return the figures."""
        self._replies.wait()
        cpu_seconds = time.process_time() - self._cpu
        first, *_, last = self._replies.times
        count = len(self._replies.times)
        return {
            "returns/s": (count - 1) / (last - first),
            "all replies after s": last - self._began,
            "CPU of the station, ms per scan": cpu_seconds / count * 1000,
        }


def measure(chosen: argparse.Namespace) -> Figures:
    """Measure all candidates in turns."""
    found: Figures = {}
    needed = chosen.rounds * (2 if chosen.rabbitmq else 1) * (3 * chosen.held + 40)
    with open_environment(chosen.database, chosen.rabbitmq, 2, needed) as environment:
        on_valkey = f"redis+socket://{environment.valkey}"
        number = 0
        for turn in range(chosen.rounds):
            for name, broker in {"Valkey": on_valkey, "RabbitMQ": chosen.rabbitmq}.items():
                if not broker:
                    continue
                rate = drain(environment, "batch", broker, chosen.held)
                add(found, "drain", f"{name}, returns/s", [rate])
                progress.print(f"round {turn + 1} of {chosen.rounds}, {name}: drain {rate:,.0f}/s")
                ways = {"reconnected": reconnected, "restarted": restarted}
                for way, replay in ways.items():
                    if way == "reconnected" and name == "RabbitMQ":
                        continue  # only a Valkey's socket can be removed and restored here
                    number += 1
                    for what, value in replay(environment, broker, chosen.held, number).items():
                        add(found, way, f"{name}, {what}", [value])
                        progress.print(f"  {way}: {what} {value:,.2f}")
    return found


def bounds(_database: str) -> list[Bound]:
    """The limits of bookdrop."""
    return [
        Bound(way, f"{broker}, returns/s", "at least", DRAIN_SHARE)
        for broker in ("Valkey", "RabbitMQ")
        for way in ("reconnected", "restarted")
    ]


def main() -> None:
    """Measure and report."""
    parser = options(__doc__, __file__, uses=("database", "rabbitmq"))
    parser.add_argument("--held", type=int, default=5_000, help="scans in the journal")
    parser.set_defaults(rounds=1)
    run(parser, measure, bounds)


if __name__ == "__main__":
    main()
