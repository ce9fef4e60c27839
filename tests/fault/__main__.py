# SPDX-License-Identifier: Apache-2.0
"""The fault suite's command: `make faults`, or `python -m tests.fault`."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from tests.fault.cluster import ServerPool
from tests.fault.report import Report
from tests.fault.runner import Run, RunFailedError, execute, large_runs, random_runs, redelivery_runs, single_fault_runs
from tests.fault.scenarios import BROKERS, DATABASES, POOLED_DATABASE
from tests.fault.servers import UnavailableError
from tests.fault.worker import MUTATIONS

USAGE_ERROR = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--short", is_flag=True, help="Run what `make test` runs, and some random runs: two minutes or so.")
@click.option(
    "--random", "number", type=click.IntRange(1), help="Run this many random scenarios of consecutive seeds only."
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="First seed of the random scenarios; alone: repeat one."
)
@click.option(
    "--only", metavar="WORDS", help="Run faults whose name contains these words, for example 'station killed'."
)
@click.option("--broker", type=click.Choice(BROKERS), help="Run on this broker only.")
@click.option(
    "--database",
    type=click.Choice((*DATABASES, POOLED_DATABASE)),
    help="Run on this database only. pgbouncer: PostgreSQL through PgBouncer in transaction mode, not part of a full run.",
)
@click.option("--times", type=click.IntRange(1), default=1, show_default=True, help="Number of runs of each fault.")
@click.option(
    "--mutate",
    "mutation",
    type=click.Choice(sorted(MUTATIONS)),
    help="Break a guarantee on purpose, to verify the suite.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures of every run to this file."
)
@click.option("--list", "is_list", is_flag=True, help="List the names of the faults, and run none.")
@click.pass_context
def main(
    ctx: click.Context, short: bool, number: int | None, seed: int, only: str | None, broker: str | None,
    database: str | None, times: int, mutation: str | None, json_file: Path | None, is_list: bool,
) -> None:  # fmt: skip
    """Inject faults into every part that bookdrop depends on, and verify its guarantees.

    Real workers and stations run on servers that the suite starts: Valkey and RabbitMQ, SQLite and PostgreSQL. The suite
    touches nothing else on this machine. After each run it reads the database, the journals and the spool: each scan has
    one effect and one reply, each Return one slip, and no work is left.

    \b
    make faults                                   every fault on every combination, then random scenarios
    make faults ARGS='--short'                    the quick part
    make faults ARGS='--random 200'               two hundred random scenarios
    make faults ARGS='--random 1 --seed 17'       the scenario of seed 17 again
    make faults ARGS='--only "station killed" --broker rabbitmq'
    make faults ARGS='--short --database pgbouncer'
    make faults ARGS='--mutate inbox'             without deduplication: the suite must detect it

    \b
    Exit codes:  0  every guarantee held
                 1  a guarantee was violated: the suite names it, keeps the folder of the run, and ends
                 2  this machine lacks a requirement, or the options are wrong
    """  # fmt: skip
    is_seeded = number is not None or ctx.get_parameter_source("seed") is not click.core.ParameterSource.DEFAULT
    runs = _planned(
        Selection(broker, database, mutation), short=short or mutation is not None, seed=seed if is_seeded else None,
        number=number, only=only, times=times,
    )  # fmt: skip
    if is_list:
        for name in dict.fromkeys(run.name for run in runs):
            click.echo(name)
        return
    report = Report(json_file)
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(ServerPool())
        try:
            for run in runs:
                report.begin(run)
                report.add(run, execute(servers, run))
        except RunFailedError as error:
            report.fail(error)
            ctx.exit(1)
        except UnavailableError as error:
            report.show()
            click.echo(
                f"{error}\nThe suite is incomplete. Select available parts with --broker and --database.", err=True
            )
            ctx.exit(USAGE_ERROR)
    report.show()
    report.succeed()


@dataclass(frozen=True)
class Selection:
    """The options that apply to all runs."""

    broker: str | None
    database: str | None
    mutation: str | None

    def combinations(self) -> list[tuple[str, str]]:
        """Brokers with databases."""
        return [
            (broker, database)
            for broker in BROKERS
            for database in ([self.database] if self.database else DATABASES)
            if self.broker in {None, broker}
        ]


def _planned(
    selection: Selection, *, short: bool, seed: int | None, number: int | None, only: str | None, times: int
) -> Iterator[Run]:
    """The selected runs in order; with a seed, random scenarios only."""
    combinations, mutation = selection.combinations(), selection.mutation
    at_random = random_runs(
        seed or 1, number or (1 if seed else 8 if short else 40), selection.broker, selection.database, mutation
    )
    if seed is not None:
        parts = [at_random]
    else:
        parts = [single_fault_runs(combinations, short=short, only=only, times=times, mutation=mutation)]
        if mutation is None:
            parts.append(at_random)
        if not short:
            parts += [large_runs(1, combinations, mutation), redelivery_runs(combinations, mutation)]
    return (run for part in parts for run in part if only is None or only.lower() in run.name.lower())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an orderly end, which ends servers and workers as well
    sys.exit(main(prog_name="make faults"))
