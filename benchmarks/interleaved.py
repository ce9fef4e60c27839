# SPDX-License-Identifier: Apache-2.0
"""A commit and this checkout, scan by scan: the workers of both run at the same time, and blocks of scans alternate.

`--against` of the other scripts alternates whole rounds, minutes apart; on a machine whose disk or clock varies by a
tenth, it cannot show a difference of 3 %. This script measures a block of some dozen scans on one side, then on the
other, and compares the two blocks. It reports the median of these ratios with its 95 % interval (bootstrap). Half of the
blocks run with the commit's side started first, half with the other: the same code on both sides can differ by 8 % by
the order of the start alone. `HEAD` as the commit shows what remains of that.

    python benchmarks/interleaved.py HEAD~20
    python benchmarks/interleaved.py v1.0.0 --database postgresql+psycopg:///postgres --blocks 100
    python benchmarks/interleaved.py v1.0.0 --rabbitmq amqp://guest:guest@127.0.0.1/a amqp://guest:guest@127.0.0.1/b
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from figures import checkout_of, progress
from rich.console import Console
from rich.table import Table

Numbers = dict[str, list[float]]
"""A figure's name, and one number for each block."""

FIGURES = {
    "latency": "1 station, p50 ms",
    "cpu of latency": "worker's CPU for a lone scan, ms",
    "drain": "drain, returns/s",
    "cpu of drain": "worker's CPU for a scan of a backlog, ms",
}
SIDE = Path(__file__).with_name("side.py")
"""The script of one side. It imports the environment of the benchmarks from the checkout that it measures."""
RESAMPLES = 2000
"""Resamples of the bootstrap."""


class Side:
    """A process that measures one checkout."""

    def __init__(self, code: Path, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", SIDE, *arguments],
            env={**os.environ, "PYTHONPATH": f"{code / 'benchmarks'}{os.pathsep}{code}"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.numbers: Numbers = {name: [] for name in FIGURES}

    def wait_until_ready(self) -> None:
        """Wait for the end of the warm-up."""
        if self._read() != "ready":
            raise SystemExit("One side did not start; its error is above.")

    def measure(self, what: str, scans: int) -> None:
        """Measure one block."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {scans}\n")
        self._process.stdin.flush()
        answer = self._read()
        if not answer:
            raise SystemExit("One side ended; its error is above.")
        for name, number in json.loads(answer).items():
            self.numbers[name].append(number)

    def close(self) -> None:
        """End the process and its workers."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def sides(chosen: argparse.Namespace, other: Path, *, commit_first: bool) -> Iterator[dict[str, Side]]:
    """Start the side of the commit, whose checkout is `other`, and that of this checkout, one after the other."""
    shared = ["--database", chosen.database, "--blocks", str(chosen.blocks)]
    shared += ["--scans", str(chosen.scans), "--backlog", str(chosen.backlog)]
    hosts = chosen.rabbitmq or [None, None]
    codes = {"commit": other, "this": Path(__file__).parents[1]}
    order = ("commit", "this") if commit_first else ("this", "commit")
    started: dict[str, Side] = {}
    with ExitStack() as stack:
        for name, host in zip(order, hosts, strict=True):
            started[name] = Side(codes[name], shared + (["--rabbitmq", host] if host else []))
            stack.callback(started[name].close)
            started[name].wait_until_ready()
        yield started


def measure(chosen: argparse.Namespace) -> tuple[Numbers, Numbers]:
    """The numbers of the commit and of this checkout, block by block."""
    found: dict[str, Numbers] = {name: {figure: [] for figure in FIGURES} for name in ("commit", "this")}
    with checkout_of(chosen.commit) as other:
        for commit_first in (True, False):
            with sides(chosen, other, commit_first=commit_first) as both:
                for block in range(chosen.blocks // 2):
                    for what, scans in (("latency", chosen.scans), ("drain", chosen.backlog)):
                        for name in ("commit", "this") if block % 2 else ("this", "commit"):
                            both[name].measure(what, scans)
                    if (block + 1) % 10 == 0:
                        progress.print(f"block {block + 1} of {chosen.blocks // 2}, half {2 - commit_first} of 2")
                for name, side in both.items():
                    for figure, numbers in side.numbers.items():
                        found[name][figure] += numbers
    return found["commit"], found["this"]


def compare(old: list[float], new: list[float]) -> dict[str, float]:
    """The median ratio of the blocks, with its 95 % interval."""
    ratios = [after / before for before, after in zip(old, new, strict=True)]
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return {
        "commit": statistics.median(old),
        "this": statistics.median(new),
        "ratio": statistics.median(ratios),
        "low": medians[RESAMPLES * 25 // 1000],
        "high": medians[RESAMPLES * 975 // 1000],
    }


def show(result: dict[str, dict[str, float]], commit: str) -> None:
    """Print a row for each figure."""
    table = Table("", commit, "this", "ratio", "95 % interval")
    for name, row in result.items():
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        table.add_row(
            FIGURES[name], f"{row['commit']:,.2f}", f"{row['this']:,.2f}", f"{row['ratio']:.3f}", interval
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("commit", nargs="?", default="HEAD", help="the commit to compare with")
    parser.add_argument("--database", default="sqlite://", help="sqlite:// (the default), or the URL of a PostgreSQL")
    parser.add_argument("--rabbitmq", nargs="+", metavar="URL", help="two unused virtual hosts of RabbitMQ")
    parser.add_argument("--blocks", type=int, default=60, help="blocks on each side")
    parser.add_argument("--scans", type=int, default=50, help="lone scans in a block")
    parser.add_argument("--backlog", type=int, default=500, help="scans of the backlog in a block")
    parser.add_argument("--json", type=Path, help="also write the figures of every block to this file")
    chosen = parser.parse_args()
    if chosen.rabbitmq and len(chosen.rabbitmq) != 2:  # noqa: PLR2004 - one for each side
        parser.error("--rabbitmq takes two URLs: both sides use the same queue names")
    old, new = measure(chosen)
    result = {name: compare(old[name], new[name]) for name in FIGURES}
    if chosen.json:
        document: dict[str, Any] = {"commit": chosen.commit, "summary": result, "blocks": {"commit": old, "this": new}}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")
    show(result, chosen.commit)


if __name__ == "__main__":
    main()
