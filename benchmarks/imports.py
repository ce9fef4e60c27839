# SPDX-License-Identifier: Apache-2.0
"""Duration and memory of `bookdrop import`, as the command runs: requests and items, when new and when stored already.

Each round has a separate database. The second import of a file changes nothing, as on most nights.

    python benchmarks/imports.py --database postgresql+psycopg:///postgres
    python benchmarks/imports.py --rows 20000 --rounds 1
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from environment import CODE, database
from figures import Bound, Figures, add, options, progress, run

from schemas.database import open_engine
from tests.library import Library

KIBIBYTES_PER_MEGABYTE = 1000 / 1.024
MAX_RSS_UNIT = 1024 if sys.platform == "darwin" else 1
"""Bytes on macOS, kibibytes elsewhere: divide by this number to get kibibytes."""
FILES: dict[str, tuple[tuple[str, ...], Callable[[int], tuple[object, ...]]]] = {
    "requests": (
        ("external_id", "partner", "branch", "status", "title", "author"),
        lambda n: (f"BR-{n:07d}", "XX-RUL", "main", "Loaned to patron", f"The book number {n}", f"Author {n % 1000}"),
    ),
    "items": (
        ("request", "barcode", "temporary_barcode", "description"),
        lambda n: (f"BR-{n:07d}", f"3100{n:08d}|A{n:08d}", f"ILL-{n:07d}", f"vol. {n % 9}"),
    ),
}
"""By kind: the columns of its file, and the row of a number."""


def write_rows(path: Path, columns: Iterable[str], row: Callable[[int], tuple[object, ...]], number: int) -> None:
    """Write a CSV file of `number` rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(row(n) for n in range(1, number + 1))


def import_file(url: str, path: Path, kind: str, expected: str) -> tuple[float, float, float]:
    """Import a file in a new process; return its seconds, its seconds of CPU, and its largest memory in megabytes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.cli", "import", str(path), "--kind", kind, "--json"],
        cwd=path.parent, stdout=subprocess.PIPE,
        env={**os.environ, "BOOKDROP_DATABASE_URL": url, "PYTHONPATH": str(CODE)},
    )  # fmt: skip
    began = time.perf_counter()
    assert process.stdout is not None
    report = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or report[expected] != report["read"]:
        raise RuntimeError(f"exit code {process.returncode}, not all rows are {expected}: {report['by_kind']}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / MAX_RSS_UNIT / KIBIBYTES_PER_MEGABYTE


def measure(chosen: argparse.Namespace) -> Figures:
    """Measure all kinds in each round."""
    found: Figures = {}
    with tempfile.TemporaryDirectory(prefix="bd-") as name:
        folder = Path(name)
        for kind, (columns, row) in FILES.items():
            write_rows(folder / f"{kind}.csv", columns, row, chosen.rows)
        for number in range(chosen.rounds):
            of_round = folder / str(number)
            of_round.mkdir()
            with database(chosen.database, of_round) as url:
                engine = open_engine(url)
                Library(engine, of_round / "spool").open(("main-desk-1",))
                engine.dispose()
                for kind in FILES:
                    for state, expected in (("new", "added"), ("stored", "unchanged")):
                        seconds, cpu, megabytes = import_file(url, folder / f"{kind}.csv", kind, expected)
                        add(found, f"{kind}, {state}", "seconds", [seconds])
                        add(found, f"{kind}, {state}", "CPU seconds", [cpu])
                        add(found, f"{kind}, {state}", "rows/s", [chosen.rows / seconds])
                        add(found, f"{kind}, {state}", "memory, MB", [megabytes])
                        progress.print(
                            f"round {number + 1} of {chosen.rounds}  {kind}, {state}: {seconds:.1f} s, {megabytes:.0f} MB"
                        )
    return found


def bounds(_database: str) -> list[Bound]:
    """The limits of bookdrop for 200,000 rows on two cores without other load."""
    return [
        Bound(f"{kind}, {state}", figure, "at most", limit, of=None)
        for kind in FILES
        for state in ("new", "stored")
        for figure, limit in (("seconds", 60), ("memory, MB", 200))
    ]


def main() -> None:
    """Measure and report."""
    parser = options(__doc__, __file__, uses=("database",))
    parser.add_argument("--rows", type=int, default=200_000, help="rows of each file")
    run(parser, measure, bounds)


if __name__ == "__main__":
    main()
