# SPDX-License-Identifier: Apache-2.0
"""Runs: a cluster is started, faults are injected, the cluster recovers, and the invariants are verified."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.fault.cluster import Cluster, InvariantError, ServerPool, Setup
from tests.fault.invariants import Findings, verify
from tests.fault.scenarios import RandomScenario, Scenario, random_scenario, redelivery_scenario, single_fault_scenarios

Combinations = Sequence[tuple[str, str]]
"""Brokers with databases."""


@dataclass(frozen=True)
class Run:
    """A scenario on one broker and one database."""

    name: str
    setup: Setup
    scenario: Scenario | RandomScenario
    options: str
    """Options of the command that repeat the run."""


class RunFailedError(Exception):
    """A run violated an invariant."""

    def __init__(
        self, run: Run, violations: Sequence[str], folder: Path, faults: Sequence[str], findings: Findings | None = None
    ) -> None:
        super().__init__(violations[0])
        self.findings = findings or Findings(events=run.setup.scans)
        self.run = run
        self.violations = violations
        self.folder = folder
        self.faults = faults


def execute(servers: ServerPool, run: Run) -> Findings:
    """Execute one run. Raises `RunFailedError` for a violation, and keeps the folder of the run then."""
    cluster = Cluster(servers, run.setup)
    injected: list[str] = []
    try:
        with cluster:
            if isinstance(run.scenario, RandomScenario):
                cluster.start_stations()
                injected += run.scenario.inject(cluster)
            else:
                if run.scenario.starts_stations:
                    cluster.start_stations()
                run.scenario.fault(cluster, random.Random(run.name))
            cluster.failpoints.disable_all()
            cluster.settle()
            findings = verify(cluster)
    except InvariantError as error:
        raise RunFailedError(run, [str(error)], cluster.folder, injected) from error
    limit = run.scenario.max_reply_seconds if isinstance(run.scenario, Scenario) else None
    if limit is not None and findings.slowest_reply > limit:
        findings.wrong.append(f"a reply took {findings.slowest_reply:.1f} s; the limit is {limit:g} s")
    findings.wrong += cluster.unfired
    if findings.violations:
        raise RunFailedError(run, findings.violations, cluster.folder, injected, findings)
    cluster.delete_files()
    return findings


def single_fault_runs(
    combinations: Combinations, *, short: bool, only: str | None, times: int, mutation: str | None
) -> Iterator[Run]:
    """Each fault alone, on each combination."""
    for broker, database in combinations:
        for scenario in single_fault_scenarios(long=not short):
            if short and only is None and not scenario.is_short:
                continue
            if broker in scenario.brokers and not (database == "sqlite" and "network of the database" in scenario.name):
                setup = replace(scenario.setup(broker, database), mutation=mutation)
                options = (
                    f"--only '{scenario.name}' --broker {broker} --database {database}{' --short' if short else ''}"
                )
                yield from [Run(scenario.name, setup, scenario, options)] * times


def redelivery_runs(combinations: Combinations, mutation: str | None) -> Iterator[Run]:
    """Redelivery by each broker alone, with the program's production waits."""
    scenario = redelivery_scenario(120)
    for broker in dict.fromkeys(broker for broker, _ in combinations):
        setup = replace(scenario.setup(broker, "sqlite"), mutation=mutation)
        yield Run(scenario.name, setup, scenario, f"--broker {broker}")


def random_runs(
    first_seed: int, number: int, broker: str | None, database: str | None, mutation: str | None
) -> Iterator[Run]:
    """Random scenarios of consecutive seeds."""
    for seed in range(first_seed, first_seed + number):
        yield _run_of(random_scenario(seed, broker, database), "at random", mutation)


def large_runs(seed: int, combinations: Combinations, mutation: str | None) -> Iterator[Run]:
    """A thousand scans from twenty stations with random faults, on each combination."""
    for broker, database in combinations:
        scenario = random_scenario(seed, broker, database, large=True)
        yield _run_of(scenario, "1,000 scans from 20 stations at random", mutation)


def _run_of(scenario: RandomScenario, name: str, mutation: str | None) -> Run:
    setup = replace(scenario.setup, mutation=mutation)
    selection = "--only 1,000" if "1,000" in name else f"--random 1 --seed {scenario.seed}"
    return Run(name, setup, scenario, f"{selection} --broker {setup.broker} --database {setup.database}")
