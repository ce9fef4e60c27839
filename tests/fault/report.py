# SPDX-License-Identifier: Apache-2.0
"""What the suite shows: a line for each run while it goes on, and the table at the end."""

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

from tests.fault.cases import Plan
from tests.fault.running import Refused, Trial
from tests.fault.verdict import Verdict

NAMES = {"valkey": "Valkey", "rabbitmq": "RabbitMQ", "sqlite": "SQLite", "postgres": "PostgreSQL"}


@dataclass
class _Row:
    times: int = 0
    events: int = 0
    resent: int = 0
    lost: int = 0
    doubled: int = 0
    slowest_answer: float = 0.0
    slowest_slip: float = 0.0


@dataclass
class Report:
    """Figures of all runs."""

    json_file: Path | None = None
    rows: dict[tuple[str, str, str], _Row] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _run_began: float = 0.0

    def begin(self, trial: Trial) -> None:
        """Say what comes."""
        self._run_began = time.monotonic()
        seed = f", seed {trial.what.seed}" if isinstance(trial.what, Plan) else ""
        where = f"{NAMES[trial.setup.broker]}, {NAMES[trial.setup.database]}"
        click.echo(f"{len(self.runs) + 1:4d}  {trial.name}{seed}  ({where}) ", nl=False, err=True)

    def add(self, trial: Trial, verdict: Verdict) -> None:
        """Keep what came of a run in which every promise held."""
        seconds = time.monotonic() - self._run_began
        click.echo(f"held: {verdict.events} events, {seconds:.1f} s", err=True)
        self._count(trial, verdict)
        self._keep(trial, seconds, dataclasses.asdict(verdict))

    def broken(self, refused: Refused) -> None:
        """Show the table with what the broken promise cost; then say which it was, and how to see it again."""
        self._count(refused.trial, refused.verdict)
        self.show()
        click.echo(f"\nA promise was broken: {refused.trial.name}", err=True)
        for why in refused.why[:10]:
            click.echo(f"  {why[:600]}", err=True)
        if len(refused.why) > 10:
            click.echo(f"  and {len(refused.why) - 10} more", err=True)
        if refused.blows:
            click.echo(f"  after: {', '.join(refused.blows)}", err=True)
        click.echo(f"Logs, journals, spool and an SQLite database are kept in {refused.folder}", err=True)
        click.echo(f'Again: make faults ARGS="{refused.trial.again}"', err=True)
        self._keep(refused.trial, time.monotonic() - self._run_began, {"broken": list(refused.why)})

    def held(self) -> None:
        """Say that all is well."""
        minutes = (time.monotonic() - self._began) / 60
        click.echo(f"{len(self.runs)} runs in {minutes:.0f} minutes: every promise held.", err=True)

    def show(self) -> None:
        """The table."""
        if not self.rows:
            return
        table = Table(box=None, pad_edge=False)
        for name in ("fault", "broker", "database"):
            table.add_column(name)
        for name in ("times", "events", "resent", "lost", "doubled", "slowest answer", "slowest slip"):
            table.add_column(name, justify="right")
        for (fault, broker, database), row in self.rows.items():
            table.add_row(
                fault, NAMES[broker], NAMES[database], str(row.times), f"{row.events:,}", str(row.resent), str(row.lost),
                str(row.doubled), f"{row.slowest_answer:.1f} s", f"{row.slowest_slip:.1f} s",
            )  # fmt: skip
        Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)

    def _count(self, trial: Trial, verdict: Verdict) -> None:
        row = self.rows.setdefault((trial.name, trial.setup.broker, trial.setup.database), _Row())
        row.times += 1
        row.events += verdict.events
        row.resent += verdict.resent
        row.lost += len(verdict.lost)
        row.doubled += len(verdict.doubled)
        row.slowest_answer = max(row.slowest_answer, verdict.slowest_answer)
        row.slowest_slip = max(row.slowest_slip, verdict.slowest_slip)

    def _keep(self, trial: Trial, seconds: float, found: dict[str, Any]) -> None:
        seed = trial.what.seed if isinstance(trial.what, Plan) else None
        outcomes = Counter(name for _, name, _ in trial.what.blows) if isinstance(trial.what, Plan) else {}
        self.runs.append(
            {"fault": trial.name, "broker": trial.setup.broker, "database": trial.setup.database, "seed": seed,
             "seconds": round(seconds, 1), "blows": dict(outcomes), **found}
        )  # fmt: skip
        if self.json_file is not None:
            self.json_file.write_text(json.dumps(self.runs, indent=1) + "\n")
