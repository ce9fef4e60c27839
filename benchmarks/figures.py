# SPDX-License-Identifier: Apache-2.0
"""Results of a benchmark: a JSON file, a table, a plot, and a comparison with another run or another commit.

Every script returns the same structure: for each candidate, lists of numbers by the name of the figure. A name that ends
in `ms` or `us` has a list of samples from all rounds, reported as p50 and p99. Any other list has one number per round,
reported as its median. The first candidate is the reference for all others.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

Figures = dict[str, dict[str, list[float]]]
"""Candidate, name of the figure, numbers."""

RESULTS = Path(__file__).parent / "results"
TIMES = ("ms", "us")
_SERVERS = {
    "database": "sqlite:// (the default), or the URL of a PostgreSQL on which databases may be created",
    "rabbitmq": "URL of an unused virtual host of RabbitMQ, which is measured beside Valkey",
}
MIN_SAMPLES_FOR_P99 = 100
progress = Console(stderr=True, soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class Bound:
    """A limit of a figure: of its ratio to the first candidate's figure, or (`of=None`) of the number itself."""

    candidate: str
    column: str
    kind: Literal["at most", "at least"]
    limit: float
    of: str | None = "first"
    """`first`: ratio to the same figure of the first candidate; a column's name: to that column of the first candidate."""

    def check(self, columns: dict[str, dict[str, float]]) -> tuple[float, bool] | None:
        """The compared number, and whether it is within the limit; `None` when it was not measured."""
        value = columns.get(self.candidate, {}).get(self.column)
        first = next(iter(columns.values()))
        against = 1.0 if self.of is None else first.get(self.column if self.of == "first" else self.of)
        if value is None or not against:
            return None
        number = value / against
        return number, number <= self.limit if self.kind == "at most" else number >= self.limit


def add(into: Figures, candidate: str, name: str, numbers: Sequence[float]) -> None:
    """Append numbers to a figure."""
    into.setdefault(candidate, {}).setdefault(name, []).extend(round(number, 4) for number in numbers)


def summarize(found: Figures) -> dict[str, dict[str, float]]:
    """One number for each column: p50 and p99 of samples, the median of other figures."""
    columns: dict[str, dict[str, float]] = {}
    for candidate, by_name in found.items():
        row = columns.setdefault(candidate, {})
        for name, numbers in by_name.items():
            if not name.endswith(TIMES):
                row[name] = statistics.median(numbers)
                continue
            what, unit = name.rsplit(" ", 1)
            row[f"{what} p50 {unit}"] = statistics.median(numbers)
            if len(numbers) >= MIN_SAMPLES_FOR_P99:
                row[f"{what} p99 {unit}"] = statistics.quantiles(numbers, n=100)[98]
    return columns


def options(doc: str | None, script: str, *, uses: Collection[str] = ()) -> argparse.ArgumentParser:
    """A parser with the options of all scripts. `uses`: `database`, `rabbitmq`; an option outside `uses` has no effect."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--json",
        type=Path,
        help="file for the figures; the plot is beside it (default: in benchmarks/results/, by script, database and time)",
    )
    parser.add_argument("--compare", type=Path, metavar="JSON", help="also show the figures of an earlier run")
    parser.add_argument(
        "--against", metavar="COMMIT", help="also measure that commit, round by round in turns with this checkout"
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds in which every candidate is measured")
    for name, text in _SERVERS.items():
        shown = text if name in uses else argparse.SUPPRESS
        parser.add_argument(f"--{name}", default="sqlite://" if name == "database" else None, help=shown)
    parser.set_defaults(script=script, uses=uses)
    return parser


def run(
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], Figures],
    bounds_of: Callable[[str], Sequence[Bound]] = lambda _database: (),
) -> None:
    """Measure with the options of the command line, and report. `bounds_of` returns the limits for a database's URL."""
    chosen = parser.parse_args()
    database = chosen.database if "database" in chosen.uses else ""
    bounds = bounds_of(database)
    name = "-".join(filter(None, (Path(chosen.script).stem, database.split(":")[0].split("+")[0])))
    chosen.json = chosen.json or RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    before = json.loads(chosen.compare.read_text())["summary"] if chosen.compare else None
    title = f"{name}, {chosen.rounds} rounds"
    if chosen.against:
        found, older = _measure_in_turns(chosen)
        before = summarize(older)
        commit = re.sub(r"[^\w.-]", "_", chosen.against)
        _write(older, chosen.json.with_suffix(f".{commit}.json"), ())
        show(older, f"{title}, at {chosen.against}", None, bounds)
    else:
        found = measure(chosen)
    _write(found, chosen.json, bounds)
    show(found, title, before, bounds)
    progress.print(f"figures: {chosen.json}   plot: {chosen.json.with_suffix('.svg')}")


def _measure_in_turns(chosen: argparse.Namespace) -> tuple[Figures, Figures]:
    """Measure this checkout and a commit, round by round, so that other load on the machine affects both alike.

    The same script measures both; PYTHONPATH names the code that it imports.
    """
    checkout = Path(__file__).parents[1]
    arguments, skip = [], False
    for argument in sys.argv[1:]:
        if not skip and not argument.startswith(("--against=", "--rounds=", "--json=", "--compare=")):
            skip = argument in {"--against", "--rounds", "--json", "--compare"}
            arguments += [] if skip else [argument]
        else:
            skip = False
    new: Figures = {}
    old: Figures = {}
    with tempfile.TemporaryDirectory(prefix="bd-") as folder, checkout_of(chosen.against) as other:
        for number in range(chosen.rounds):
            for code, into in ((other, old), (checkout, new)):
                progress.print(f"round {number + 1} of {chosen.rounds}: {chosen.against if into is old else 'this'}")
                file = Path(folder) / "round.json"
                command = [sys.executable, chosen.script, *arguments, "--rounds", "1", "--json", str(file)]
                subprocess.run(
                    command, check=True, env={**os.environ, "PYTHONPATH": str(code)}, stdout=subprocess.DEVNULL
                )
                for candidate, by_name in json.loads(file.read_text())["figures"].items():
                    for name, numbers in by_name.items():
                        add(into, candidate, name, numbers)
    return new, old


@contextmanager
def checkout_of(commit: str) -> Iterator[Path]:
    """Check a commit out into a temporary folder; yield the folder."""
    with tempfile.TemporaryDirectory(prefix="bd-") as folder:
        other = Path(folder) / "commit"
        git = ["git", "-C", str(Path(__file__).parents[1]), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(other), commit], check=True)
        try:
            yield other
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=True)


def _write(found: Figures, file: Path, bounds: Sequence[Bound]) -> None:
    columns = summarize(found)
    document: dict[str, Any] = {
        "machine": {"python": platform.python_version(), "system": platform.platform(), "cpus": os.cpu_count()},
        "summary": columns,
        "ratios": ratios(columns),
        "bounds": [_verdict(bound, columns) for bound in bounds],
        "figures": found,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n")
    file.with_suffix(".svg").write_text(plot(columns, file.stem))


def _verdict(bound: Bound, columns: dict[str, dict[str, float]]) -> dict[str, Any]:
    outcome = bound.check(columns)
    return {**vars(bound), "measured": outcome and outcome[0], "kept": outcome and outcome[1]}


def ratios(columns: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Each number as a ratio to that of the first candidate."""
    first = next(iter(columns.values()), {})
    return {
        candidate: {name: value / first[name] for name, value in row.items() if first.get(name)}
        for candidate, row in columns.items()
    }


def show(found: Figures, title: str, before: dict[str, dict[str, float]] | None, bounds: Sequence[Bound]) -> None:
    """Print a table with a row for each figure and a column for each candidate, and the result of each limit."""
    columns = summarize(found)
    times = ratios(columns)
    first = next(iter(columns))
    names = list(dict.fromkeys(name for row in columns.values() for name in row))
    table = Table("", *columns, title=title)
    for name in names:
        cells = []
        for candidate, row in columns.items():
            value = row.get(name)
            cell = "" if value is None else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"  # noqa: PLR2004
            if candidate != first and name in times[candidate]:
                cell += f"  {times[candidate][name]:.2f} x"
            was = (before or {}).get(candidate, {}).get(name)
            if was and value is not None:
                cell += f"\nwas {was:,.2f}, {value / was:.2f} x"
            cells.append(cell)
        table.add_row(name, *cells)
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(table)
    for bound in bounds:
        outcome = bound.check(columns)
        if outcome is not None:
            unit = "" if bound.of is None else f" x {first}'s"
            result = "kept  " if outcome[1] else "MISSED"
            console.print(
                f"{result} {bound.candidate}, {bound.column}: {outcome[0]:.2f}{unit}, {bound.kind} {bound.limit:g}",
                highlight=False,
            )


_HUES = ("#4c566a", "#5e81ac", "#88c0d0", "#a3be8c", "#ebcb8b", "#d08770", "#b48ead", "#bf616a")
_LINE_HEIGHT, _LABEL, _WIDTH, _VALUE = 18, 240, 460, 170


def plot(columns: dict[str, dict[str, float]], title: str) -> str:
    """An SVG with a group of bars for each figure, each bar relative to the longest of its group."""
    times = ratios(columns)
    names = list(dict.fromkeys(name for row in columns.values() for name in row))
    elements: list[str] = []
    y = 44
    for name in names:
        elements.append(_text(12, y, name, weight="bold"))
        largest = max(row.get(name, 0.0) for row in columns.values()) or 1.0
        for number, (candidate, row) in enumerate(columns.items()):
            if name not in row:
                continue
            y += _LINE_HEIGHT
            length = max(1.0, row[name] / largest * _WIDTH)
            elements += [
                _text(_LABEL - 8, y, candidate, anchor="end"),
                f'<rect x="{_LABEL}" y="{y - 12}" width="{length:.1f}" height="14" fill="{_HUES[number % len(_HUES)]}"/>',
                _text(_LABEL + length + 6, y, f"{row[name]:,.4g}  ({times[candidate].get(name, 1):.2f} x)"),
            ]
        y += _LINE_HEIGHT + 10
    width = _LABEL + _WIDTH + _VALUE
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}">',
            f'<rect width="{width}" height="{y}" fill="#ffffff"/>',
            _text(12, 22, title, weight="bold", size=15),
            *elements,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", size: int = 12) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}"'
        f' font-family="sans-serif" fill="#2e3440">{escape(text)}</text>'
    )
