# SPDX-License-Identifier: Apache-2.0
"""Duration of a scan in databases of several sizes, up to millions of requests, in turns.

The benchmark measures the handler in its transaction, as a worker runs it for a single scan. There is no broker, so only
the database differs. Each database has the same number of items on loan (--on-loan); it grows by returned requests with
their history and replies. With --on-loan all, every request is on loan, and scans are spread over the whole table.

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

from environment import database
from figures import Bound, Figures, add, options, progress, run
from loading import load
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


class SizedDatabase:
    """A database of one size, and the barcodes to scan in it."""

    def __init__(self, url: str, requests: int, on_loan: int, spool: Path) -> None:
        self._engine = open_engine(url)
        self._library = Library(self._engine, spool).open((STATION,))
        began = time.monotonic()
        barcodes = list(load(url, requests, on_loan))
        progress.print(f"loaded {requests:,} requests in {time.monotonic() - began:,.0f} s")
        random.Random(1).shuffle(barcodes)
        self._barcodes: Iterator[str] = iter(barcodes)
        self._sessions = sessionmaker(self._engine)
        self._published = PublishedRows()
        self._policy = LibraryPolicy(new_id=uuid7, undo_window=timedelta(minutes=10))

    def scan(self) -> float:
        """Return one item; return the seconds from the event to its commit."""
        event = self._library.scan(next(self._barcodes), station=STATION, print_slip=False)
        received = Received(event, reply_queue(STATION))
        began = time.perf_counter()

        def work() -> UnitOfWork:
            with UnitOfWork(self._sessions, datetime.now(UTC), self._published) as uow:
                [processed] = process_in(uow, [received], RETURN_HANDLER, self._policy).processed
                if processed.reply is None or processed.reply.outcome != "returned":
                    raise RuntimeError(f"not returned: {processed.reply}")
            return uow

        uow = retry_on_conflict(work)
        seconds = time.perf_counter() - began
        self._published.add(message.outbox_id for message in uow.pending_messages if message.outbox_id is not None)
        return seconds

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()


def measure(chosen: argparse.Namespace) -> Figures:
    """Measure all sizes in turns, scan by scan."""
    found: Figures = {}
    with tempfile.TemporaryDirectory(prefix="bd-") as name, ExitStack() as stack:
        databases: dict[str, SizedDatabase] = {}
        for size in chosen.sizes:
            folder = Path(name) / str(size)
            folder.mkdir()
            url = stack.enter_context(database(chosen.database, folder))
            on_loan = size if chosen.on_loan == "all" else int(chosen.on_loan)
            databases[label(size)] = SizedDatabase(url, size, on_loan, folder / "spool")
            stack.callback(databases[label(size)].close)
        for sized in databases.values():
            for _ in range(WARM_UP):
                sized.scan()
        for number in range(chosen.rounds):
            this: Figures = {}
            for _ in range(chosen.scans):
                for size, sized in databases.items():  # scan by scan, so that other load on the disk affects all alike
                    add(this, size, "scan, ms", [sized.scan() * 1000])
            for size in databases:
                add(found, size, "scan, ms", this[size]["scan, ms"])
            medians = ", ".join(f"{size} {statistics.median(this[size]['scan, ms']):.2f} ms" for size in databases)
            progress.print(f"round {number + 1} of {chosen.rounds}  p50 with {medians}")
    return found


def label(size: int) -> str:
    """The candidate's name of a size."""
    return f"{size:,} requests"


def bounds(_database: str) -> list[Bound]:
    """The limits of bookdrop."""
    return [Bound(label(3_000_000), "scan, p50 ms", "at most", 1.15)]


def main() -> None:
    """Measure and report."""
    parser = options(__doc__, __file__, uses=("database",))
    parser.add_argument(
        "--sizes", default=[10_000, 100_000, 3_000_000], type=lambda text: [int(number) for number in text.split(",")],
        help="numbers of requests; the first is the reference",
    )  # fmt: skip
    parser.add_argument("--on-loan", default="5000", metavar="N", help="number of requests on loan, or: all")
    parser.add_argument("--scans", type=int, default=300, help="scans in each round, for each size")
    run(parser, measure, bounds)


if __name__ == "__main__":
    main()
