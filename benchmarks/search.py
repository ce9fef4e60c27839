# SPDX-License-Identifier: Apache-2.0
"""Duration of `bookdrop requests find` in a database of millions of requests: by words, barcode, ISBN and identifier.

The benchmark measures the queries in this process, without the start of the command. Every title has the words "book" and
"number" and its own number, so a search is measured that one request matches, and one that all match.

    python benchmarks/search.py --database postgresql+psycopg:///postgres
    python benchmarks/search.py --sizes 10000
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from environment import analyze, database
from figures import Bound, Figures, add, options, progress, run
from loading import load
from sqlalchemy import Connection, text

from schemas.database import READ_ONLY, open_engine
from tasks.requests.search import Filter, identify, page
from tests.library import Library

ON_LOAN = 5000
WITH_ISBN = "UPDATE requests SET isbn = CAST(9780000000000 + id AS VARCHAR(13)) WHERE id % 100 = 0"
"""A hundredth of the requests have an ISBN; its check digit is not verified here."""


def searches(size: int, pick: random.Random) -> dict[str, Callable[[Connection], Any]]:
    """One search of each kind, by name."""
    number = pick.randint(1, size)
    with_isbn = pick.randint(1, max(1, size // 100)) * 100
    now = datetime.now(UTC)
    return {
        "words of one request": lambda connection: page(connection, Filter(words=f"book {number}"), now).requests,
        "words of all requests": lambda connection: page(connection, Filter(words="book number"), now).requests,
        "barcode": lambda connection: identify(connection, f"3100{number:08d}"),
        "identifier": lambda connection: identify(connection, f"BR-{number}"),
        "ISBN": lambda connection: connection.execute(
            text("SELECT id FROM requests WHERE isbn = :isbn"), {"isbn": str(9780000000000 + with_isbn)}
        ).all(),
    }


def measure(chosen: argparse.Namespace) -> Figures:
    """Measure every kind of search in each round, for each size."""
    found: Figures = {}
    pick = random.Random(1)
    for size in chosen.sizes:
        with tempfile.TemporaryDirectory(prefix="bd-") as name, database(chosen.database, Path(name)) as url:
            engine = open_engine(url)
            Library(engine, Path(name) / "spool").open(("main-desk-1",))
            began = time.monotonic()
            for _ in load(url, size, min(ON_LOAN, size)):
                break
            with engine.begin() as connection:
                connection.execute(text(WITH_ISBN))
            analyze(url)
            progress.print(f"loaded {size:,} requests in {time.monotonic() - began:,.0f} s")
            with engine.connect().execution_options(**READ_ONLY) as connection:
                for each in searches(size, pick).values():
                    each(connection)
                for number in range(chosen.rounds):
                    for kind, each in searches(size, pick).items():
                        begun = time.perf_counter()
                        rows = each(connection)
                        milliseconds = (time.perf_counter() - begun) * 1000
                        if not rows:
                            raise RuntimeError(f"{kind}: nothing was found")
                        add(found, f"{size:,} requests", f"{kind}, ms", [milliseconds])
                    progress.print(f"round {number + 1} of {chosen.rounds}")
            engine.dispose()
    return found


def bounds(_database: str) -> list[Bound]:
    """The benchmark has no limits."""
    return []


def main() -> None:
    """Measure and report."""
    parser = options(__doc__, __file__, uses=("database",))
    parser.add_argument(
        "--sizes", default=[3_000_000], type=lambda text: [int(number) for number in text.split(",")],
        help="numbers of requests",
    )  # fmt: skip
    run(parser, measure, bounds)


if __name__ == "__main__":
    main()
