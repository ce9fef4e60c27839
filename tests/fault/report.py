# SPDX-License-Identifier: Apache-2.0
"""The suite's output: one line for each run while it is executed, and a table at the end."""

import dataclasses
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tests.fault.invariants import Findings
from tests.fault.runner import Run, RunFailedError
from tests.fault.scenarios import RandomScenario

NAMES = {"valkey": "Valkey", "rabbitmq": "RabbitMQ", "sqlite": "SQLite", "postgres": "PostgreSQL",
         "pgbouncer": "PgBouncer"}  # fmt: skip


@dataclass
class _Row:
    times: int = 0
    events: int = 0
    resent: int = 0
    lost: int = 0
    doubled: int = 0
    slowest_reply: float = 0.0
    slowest_slip: float = 0.0


@dataclass
class Report:
    """The figures of all runs."""

    json_file: Path | None = None
    rows: dict[tuple[str, str, str], _Row] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _run_started: float = 0.0

    def begin(self, run: Run) -> None:
        """Print the name of a run that starts."""
        self._run_started = time.monotonic()
        seed = f", seed {run.scenario.seed}" if isinstance(run.scenario, RandomScenario) else ""
        combination = f"{NAMES[run.setup.broker]}, {NAMES[run.setup.database]}"
        click.echo(f"{len(self.runs) + 1:4d}  {run.name}{seed}  ({combination}) ", nl=False, err=True)

    def add(self, run: Run, findings: Findings) -> None:
        """Record a run in which every guarantee held."""
        seconds = time.monotonic() - self._run_started
        click.echo(f"held: {findings.events} events, {seconds:.1f} s", err=True)
        self._count(run, findings)
        self._store(run, seconds, dataclasses.asdict(findings))

    def fail(self, error: RunFailedError) -> None:
        """Print the table, the violated guarantee, and the way to repeat the run."""
        self._count(error.run, error.findings)
        self.show()
        click.echo(f"\nA guarantee was violated: {error.run.name}", err=True)
        for violation in error.violations[:10]:
            click.echo(f"  {violation[:600]}", err=True)
        if len(error.violations) > 10:
            click.echo(f"  and {len(error.violations) - 10} more", err=True)
        if error.faults:
            click.echo(f"  after: {', '.join(error.faults)}", err=True)
        click.echo(f"Logs, journals, spool and an SQLite database are in {error.folder}", err=True)
        click.echo(f'Repeat: make faults ARGS="{error.run.options}"', err=True)
        self._store(error.run, time.monotonic() - self._run_started, {"violations": list(error.violations)})

    def succeed(self) -> None:
        """Print that every guarantee held."""
        minutes = (time.monotonic() - self._started) / 60
        click.echo(f"{len(self.runs)} runs in {minutes:.0f} minutes: every guarantee held.", err=True)

    def show(self) -> None:
        """Print the table."""
        if not self.rows:
            return
        table = Table(box=None, pad_edge=False)
        for name in ("fault", "broker", "database"):
            table.add_column(name)
        for name in ("times", "events", "resent", "lost", "doubled", "slowest reply", "slowest slip"):
            table.add_column(name, justify="right")
        for (fault, broker, database), row in self.rows.items():
            table.add_row(
                fault, NAMES[broker], NAMES[database], str(row.times), f"{row.events:,}", str(row.resent), str(row.lost),
                str(row.doubled), f"{row.slowest_reply:.1f} s", f"{row.slowest_slip:.1f} s",
            )  # fmt: skip
        Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)

    def _count(self, run: Run, findings: Findings) -> None:
        row = self.rows.setdefault((run.name, run.setup.broker, run.setup.database), _Row())
        row.times += 1
        row.events += findings.events
        row.resent += findings.resent
        row.lost += len(findings.lost)
        row.doubled += len(findings.doubled)
        row.slowest_reply = max(row.slowest_reply, findings.slowest_reply)
        row.slowest_slip = max(row.slowest_slip, findings.slowest_slip)

    def _store(self, run: Run, seconds: float, result: dict[str, Any]) -> None:
        scenario = run.scenario if isinstance(run.scenario, RandomScenario) else None
        faults = Counter(name for _, name, _ in scenario.faults) if scenario else {}
        self.runs.append(
            {"fault": run.name, "broker": run.setup.broker, "database": run.setup.database, "seed": scenario and scenario.seed,
             "seconds": round(seconds, 1), "faults": dict(faults), **result}
        )  # fmt: skip
        if self.json_file is not None:
            self.json_file.write_text(json.dumps(self.runs, indent=1) + "\n")
