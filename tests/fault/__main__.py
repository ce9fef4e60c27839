# SPDX-License-Identifier: Apache-2.0
"""The fault suite's command: `make faults`, or `python -m tests.fault`."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from tests.fault.cases import BROKERS, DATABASES
from tests.fault.report import Report
from tests.fault.running import Refused, Trial, big, chosen_cases, redeliveries, seeded, trial
from tests.fault.scene import Grounds
from tests.fault.servers import NotHereError
from tests.fault.worker import SABOTAGE

NOT_HERE = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--short", is_flag=True, help="Only what `make test` runs, and some random runs: two minutes or so.")
@click.option("--random", "number", type=click.IntRange(1), help="Only so many random runs, of seeds in a row.")
@click.option(
    "--seed", type=int, default=1, show_default=True, help="First seed of the random runs; alone: repeat one."
)
@click.option("--only", metavar="WORDS", help="Only faults whose name has these words, such as 'station killed'.")
@click.option("--broker", type=click.Choice(BROKERS), help="Only on this broker.")
@click.option("--database", type=click.Choice(DATABASES), help="Only on this database.")
@click.option("--times", type=click.IntRange(1), default=1, show_default=True, help="How often each fault is tried.")
@click.option(
    "--sabotage", type=click.Choice(sorted(SABOTAGE)), help="Break a promise on purpose: see the suite notice."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every run's figures to this file.")
@click.option("--list", "is_list", is_flag=True, help="Name the faults, and run nothing.")
@click.pass_context
def main(
    ctx: click.Context, short: bool, number: int | None, seed: int, only: str | None, broker: str | None,
    database: str | None, times: int, sabotage: str | None, json_file: Path | None, is_list: bool,
) -> None:  # fmt: skip
    """Kill, stop, cut and fill everything that bookdrop stands on, and look whether its promises hold.

    Real workers and stations run on servers of the suite's own: Valkey and RabbitMQ, SQLite and PostgreSQL. Nothing else
    on this machine is touched. After each run the database, the journals and the spool are read: each scan one effect and
    one answer, each return one slip, nothing left over.

    \b
    make faults                                   all of it: every fault on every combination, then at random
    make faults ARGS='--short'                    the quick part
    make faults ARGS='--random 200'               two hundred random runs
    make faults ARGS='--random 1 --seed 17'       the run of seed 17 again
    make faults ARGS='--only "station killed" --broker rabbitmq'
    make faults ARGS='--sabotage inbox'           without the inbox's check: it must be noticed

    \b
    Exit codes:  0  every promise held
                 1  a promise was broken: it says which, keeps the run's folder, and stops there
                 2  this machine lacks something, or wrong use
    """  # fmt: skip
    is_seeded = number is not None or ctx.get_parameter_source("seed") is not click.core.ParameterSource.DEFAULT
    trials = _planned(
        Wanted(broker, database, sabotage), short=short or sabotage is not None, seed=seed if is_seeded else None,
        number=number, only=only, times=times,
    )  # fmt: skip
    if is_list:
        for name in dict.fromkeys(each.name for each in trials):
            click.echo(name)
        return
    report = Report(json_file)
    with contextlib.ExitStack() as stack:
        grounds = stack.enter_context(Grounds())
        try:
            for each in trials:
                report.begin(each)
                report.add(each, trial(grounds, each))
        except Refused as refused:
            report.broken(refused)
            ctx.exit(1)
        except NotHereError as error:
            report.show()
            click.echo(f"{error}\nNot everything was tried. --broker and --database choose what is here.", err=True)
            ctx.exit(NOT_HERE)
    report.show()
    report.held()


@dataclass(frozen=True)
class Wanted:
    """What all trials have in common."""

    broker: str | None
    database: str | None
    sabotage: str | None

    def combinations(self) -> list[tuple[str, str]]:
        """Brokers with databases."""
        return [
            (broker, database)
            for broker in BROKERS
            for database in DATABASES
            if self.broker in {None, broker} and self.database in {None, database}
        ]


def _planned(
    wanted: Wanted, *, short: bool, seed: int | None, number: int | None, only: str | None, times: int
) -> Iterator[Trial]:
    """All trials that are asked for, in their order; with a seed, random runs alone."""
    combinations, sabotage = wanted.combinations(), wanted.sabotage
    at_random = seeded(
        seed or 1, number or (1 if seed else 8 if short else 40), wanted.broker, wanted.database, sabotage
    )
    if seed is not None:
        parts = [at_random]
    else:
        parts = [chosen_cases(combinations, short=short, only=only, times=times, sabotage=sabotage)]
        if sabotage is None:
            parts.append(at_random)
        if not short:
            parts += [big(1, combinations, sabotage), redeliveries(combinations, sabotage)]
    return (each for part in parts for each in part if only is None or only.lower() in each.name.lower())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an end in good order: servers and workers end as well
    sys.exit(main(prog_name="make faults"))
