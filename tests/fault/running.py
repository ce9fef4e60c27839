# SPDX-License-Identifier: Apache-2.0
"""One trial after the other: a scene, its blows, the end, the verdict."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.fault.cases import Case, Plan, by_redelivery, directed, random_plan
from tests.fault.scene import BrokenPromiseError, Grounds, Scene, Setup
from tests.fault.verdict import Verdict, judge

Combinations = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Trial:
    """A case on one combination, or a random plan."""

    name: str
    setup: Setup
    what: Case | Plan
    again: str
    """Options that repeat it."""


class Refused(Exception):  # noqa: N818 - a verdict, not a fault of the suite
    """A promise was broken in `trial`."""

    def __init__(
        self, trial: Trial, why: Sequence[str], folder: Path, blows: Sequence[str], verdict: Verdict | None = None
    ) -> None:
        super().__init__(why[0])
        self.verdict = verdict or Verdict(events=trial.setup.scans)
        self.trial = trial
        self.why = why
        self.folder = folder
        self.blows = blows


def trial(grounds: Grounds, wanted: Trial) -> Verdict:
    """Run one trial. Raises `Refused` when a promise is broken; then its folder is kept."""
    scene = Scene(grounds, wanted.setup)
    fallen: list[str] = []
    try:
        with scene:
            if isinstance(wanted.what, Plan):
                scene.open_stations()
                fallen += wanted.what.strike(scene)
            else:
                if wanted.what.opens_stations:
                    scene.open_stations()
                wanted.what.blow(scene, random.Random(wanted.name))
            scene.arms.disarm()
            scene.settle()
            verdict = judge(scene)
    except BrokenPromiseError as error:
        raise Refused(wanted, [str(error)], scene.folder, fallen) from error
    within = wanted.what.answers_within if isinstance(wanted.what, Case) else None
    if within is not None and verdict.slowest_answer > within:
        verdict.wrong.append(f"an answer took {verdict.slowest_answer:.1f} s, and {within:g} s are promised")
    verdict.wrong += scene.missed
    if verdict.broken:
        raise Refused(wanted, verdict.broken, scene.folder, fallen, verdict)
    scene.forget()
    return verdict


def chosen_cases(
    combinations: Combinations, *, short: bool, only: str | None, times: int, sabotage: str | None
) -> Iterator[Trial]:
    """The faults one by one, on each combination."""
    for broker, database in combinations:
        for case in directed(long=not short):
            if short and only is None and not case.is_short:
                continue
            if broker in case.brokers and not (database == "sqlite" and "network of the database" in case.name):
                setup = replace(case.setup(broker, database), sabotage=sabotage)
                again = f"--only '{case.name}' --broker {broker} --database {database}{' --short' if short else ''}"
                yield from [Trial(case.name, setup, case, again)] * times


def redeliveries(combinations: Combinations, sabotage: str | None) -> Iterator[Trial]:
    """How long the broker alone takes, with the program's own waits."""
    case = by_redelivery(120)
    for broker in dict.fromkeys(broker for broker, _ in combinations):
        setup = replace(case.setup(broker, "sqlite"), sabotage=sabotage)
        yield Trial(case.name, setup, case, f"--broker {broker}")


def seeded(first: int, number: int, broker: str | None, database: str | None, sabotage: str | None) -> Iterator[Trial]:
    """Random runs of seeds in a row."""
    for seed in range(first, first + number):
        yield _of(random_plan(seed, broker, database), "at random", sabotage)


def big(seed: int, combinations: Combinations, sabotage: str | None) -> Iterator[Trial]:
    """A thousand scans from twenty stations, through all of it."""
    for broker, database in combinations:
        yield _of(random_plan(seed, broker, database, big=True), "1,000 scans from 20 stations at random", sabotage)


def _of(plan: Plan, name: str, sabotage: str | None) -> Trial:
    setup = replace(plan.setup, sabotage=sabotage)
    which = "--only 1,000" if "1,000" in name else f"--random 1 --seed {plan.seed}"
    again = f"{which} --broker {setup.broker} --database {setup.database}"
    return Trial(name, setup, plan, again)
