# SPDX-License-Identifier: Apache-2.0
"""Whether a scan takes longer when a library has gathered millions of requests: databases of several sizes, in turns.

Measured is the handler in its transaction, as a worker runs it for a lone scan; no broker stands between, so what
differs is the database alone. As many items are on loan in each (--on-loan); what grows is what was returned before,
with its history and its answers. With --on-loan all, every request is on loan, and scans come from all over the table.

    python benchmarks/growth.py --database postgresql+psycopg:///postgres
    python benchmarks/growth.py --database sqlite:// --sizes 10000,100000
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from figures import Bound, Figures, add, options, progress, run
from loading import load
from place import database
from sqlalchemy.orm import sessionmaker
from uuid6 import uuid7

from schemas.database import open_engine
from schemas.topology import reply_queue
from tasks.events.policy import LibraryPolicy
from tasks.events.processing import process_in
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tasks.unit_of_work import PublishedRows, UnitOfWork, retry_on_conflict
from tests.library import Library

STATION = "main-desk-1"
WARM_UP = 50


class RequestSet:
    """A database of one size, and the barcodes that can be scanned in it."""

    def __init__(self, url: str, requests: int, on_loan: int, spool: Path) -> None:
        self._engine = open_engine(url)
        self._library = Library(self._engine, spool).open((STATION,))
        began = time.monotonic()
        barcodes = list(load(url, requests, on_loan))
        progress.print(f"loaded {requests:,} requests in {time.monotonic() - began:,.0f} s")
        random.Random(1).shuffle(barcodes)
        self._barcodes: Iterator[str] = iter(barcodes)
        self._sessions = sessionmaker(self._engine)
        self._settled = PublishedRows()
        self._house = LibraryPolicy(new_id=uuid7, undo_window=timedelta(minutes=10))

    def scan(self) -> float:
        """Return one item; give the seconds from the event to its commit."""
        event = self._library.scan(next(self._barcodes), station=STATION, print_slip=False)
        received = Received(event, reply_queue(STATION))
        began = time.perf_counter()

        def work() -> UnitOfWork:
            with UnitOfWork(self._sessions, datetime.now(UTC), self._settled) as uow:
                [answered] = process_in(uow, [received], RETURN_HANDLER, self._house).processed
                if answered.reply is None or answered.reply.outcome != "returned":
                    raise RuntimeError(f"not returned: {answered.reply}")
            return uow

        uow = retry_on_conflict(work)
        seconds = time.perf_counter() - began
        self._settled.add(promise.outbox_id for promise in uow.pending_messages if promise.outbox_id is not None)
        return seconds

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


def measure(chosen: argparse.Namespace) -> Figures:
    """All sizes in turns, in short strokes."""
    found: Figures = {}
    with tempfile.TemporaryDirectory(prefix="bd-") as name, ExitStack() as stack:
        shelves: dict[str, RequestSet] = {}
        for size in chosen.sizes:
            folder = Path(name) / str(size)
            folder.mkdir()
            url = stack.enter_context(database(chosen.database, folder))
            on_loan = size if chosen.on_loan == "all" else int(chosen.on_loan)
            shelves[named(size)] = RequestSet(url, size, on_loan, folder / "spool")
            stack.callback(shelves[named(size)].close)
        for shelf in shelves.values():
            for _ in range(WARM_UP):
                shelf.scan()
        for number in range(chosen.rounds):
            this: Figures = {}
            for _ in range(chosen.scans):
                for size, shelf in shelves.items():  # scan by scan: whatever the disk does meanwhile hits all alike
                    add(this, size, "scan, ms", [shelf.scan() * 1000])
            for size in shelves:
                add(found, size, "scan, ms", this[size]["scan, ms"])
            words = ", ".join(f"{size} {statistics.median(this[size]['scan, ms']):.2f} ms" for size in shelves)
            progress.print(f"round {number + 1} of {chosen.rounds}  p50 with {words}")
    return found


def named(size: int) -> str:
    """A size in words."""
    return f"{size:,} requests"


def bounds(_database: str) -> list[Bound]:
    """What bookdrop promises of itself."""
    return [Bound(named(3_000_000), "scan, p50 ms", "at most", 1.15)]


def main() -> None:
    """Measure and tell."""
    parser = options(__doc__, __file__, uses=("database",))
    parser.add_argument(
        "--sizes", default=[10_000, 100_000, 3_000_000], type=lambda words: [int(word) for word in words.split(",")],
        help="how many requests; the first is what the others are compared with",
    )  # fmt: skip
    parser.add_argument("--on-loan", default="5000", metavar="N", help="how many of them are on loan, or: all")
    parser.add_argument("--scans", type=int, default=300, help="in each round, of each size")
    run(parser, measure, bounds)


if __name__ == "__main__":
    main()
