# SPDX-License-Identifier: Apache-2.0
"""The catalogue: every fault of its own, and random runs made from a seed."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tests.fault import blows
from tests.fault.blows import Blow, amid, kill_at
from tests.fault.scene import Scene, Setup
from tests.fault.station import POINTS as STATION_POINTS
from tests.fault.station import Shift
from tests.fault.worker import POINTS as WORKER_POINTS

BROKERS = ("valkey", "rabbitmq")
DATABASES = ("sqlite", "postgres")

RETURNS_POINTS = ("before the transaction", "inside the transaction", "before the reply", "after the reply")
PRINTING_POINTS = ("inside the transaction", "before the slip", "after the slip", "before the reply", "after the reply")
HOUSEKEEPING_POINTS = ("before the transaction", "inside the transaction", "before the reply", "after the reply")


@dataclass(frozen=True)
class Case:
    """One fault: what is done, and to what."""

    name: str
    blow: Blow
    is_short: bool = False
    """Whether the short set has it."""
    brokers: tuple[str, ...] = BROKERS
    opens_stations: bool = True
    """Whether the stations scan before the blow falls."""
    options: dict[str, object] = field(default_factory=dict)
    """Of the `Setup`."""
    shift: dict[str, object] = field(default_factory=dict)
    """Of every station's `Shift`."""
    answers_within: float | None = None
    """Seconds in which every scan must have had its answer."""

    def setup(self, broker: str, database: str, stations: int = 3, scans: int = 4) -> Setup:
        """A small run of it: each station scans some items, and one that somebody scanned before."""
        shifts = tuple(
            Shift(
                code=f"main-desk-{number}",
                barcodes=(*(f"3100{number * scans + at:06d}" for at in range(scans)), f"3100{scans + 1:06d}"),
                pause=0.15,
                **self.shift,  # type: ignore[arg-type]
            )
            for number in range(1, stations + 1)
        )
        return Setup(broker, database, shifts, **self.options)  # type: ignore[arg-type]


def directed(*, long: bool) -> tuple[Case, ...]:
    """Every fault by itself. `long`: as long as the promises say, such as a broker that is away for half a minute."""
    away, locked, stalled = (30.0, 12.0, 12.0) if long else (2.0, 2.0, 1.5)
    quick = {"inside the transaction", "before the reply"}
    return (
        Case("nothing happens", blows.nothing, is_short=True),
        *(
            Case(f"returns worker killed {point}", kill_at("returns", point, visit=2), point in quick, answers_within=15)
            for point in RETURNS_POINTS
        ),
        *(
            Case(f"a returns worker's process killed {point}", kill_at("returns", point, "process", 2))
            for point in RETURNS_POINTS
        ),
        Case("returns worker killed before the ack", kill_at("returns", "before the ack", visit=2)),
        Case(
            "returns worker killed, nobody asks again",
            blows.several(
                kill_at("returns", "inside the transaction"), kill_at("returns", "after the commit", "process")
            ),
            is_short=True,
            shift={"asks_again": False},
        ),
        *(
            Case(f"print worker killed {point}", kill_at("printing", point, visit=2), point == "after the slip")
            for point in PRINTING_POINTS
        ),
        *(
            Case(f"housekeeping killed {point}", kill_at("housekeeping", point), point == "after the reply")
            for point in HOUSEKEEPING_POINTS
        ),
        *(
            Case(f"station killed {point}", kill_at("a station", point, visit=2), point == "before the reply is written")
            for point in STATION_POINTS
        ),
        Case(
            "idle worker stopped with a message just popped, then killed",
            blows.with_a_message_just_popped, is_short=True, opens_stations=False,
        ),
        Case(
            "the same, kombu transport (Redis loses the message)",
            blows.with_a_message_just_popped, brokers=("valkey",), opens_stations=False,
            options={"transport": "kombu"},
        ),
        Case("worker asleep beyond the visibility timeout", amid(blows.asleep("returns", 9.0)), options={"returns_workers": 2}),
        Case("broker killed with a backlog", amid(blows.broker_killed_with_a_backlog)),
        Case(f"broker stopped for {away:g} s", amid(blows.broker_stopped(away))),
        Case("database restarted, or locked", amid(blows.database_away(locked)), is_short=True),
        Case("disk of the slips full", amid(blows.spool_disk_full(3.0)), options={"small_disks": ("spool",)}),
        Case("disk of a journal full", amid(blows.journal_disk_full(3.0)), options={"small_disks": ("journals",)}),
        *(
            Case(f"network of the {whose} {words}", amid(blows.network(what, whose, stalled)))
            for whose in ("workers", "stations", "database")
            for what, words in (("cut", "cut"), ("reset", "reset"), ("stall", f"stalled for {stalled:g} s"))
        ),
        Case("connections of the stations lost without a word", amid(blows.network("drop", "stations"))),
        Case("connections of the workers lost without a word", amid(blows.network("drop", "workers"))),
        Case("clock of the stations five minutes ahead", blows.nothing, shift={"clock_off": 300.0}),
        Case("clock of the stations five minutes behind", blows.nothing, shift={"clock_off": -300.0}),
    )  # fmt: skip


def by_redelivery(seconds: int) -> Case:
    """How long it takes when nobody asks again, with the program's own waits."""
    return Case(
        f"killed, by redelivery alone after {seconds} s",
        kill_at("returns", "inside the transaction"),
        options={"hurry": False, "redis_visibility_timeout_seconds": seconds},
        shift={"asks_again": False},
        answers_within=180,
    )


BLOWS: tuple[tuple[str, int, Callable[[random.Random], Blow]], ...] = (
    ("a worker killed at a point", 6, lambda dice: kill_at(*_worker_point(dice), visit=dice.randint(1, 4), must_strike=False)),
    ("a station killed at a point", 3, lambda dice: kill_at("a station", dice.choice(STATION_POINTS), visit=dice.randint(1, 3), must_strike=False)),
    ("a worker killed", 3, lambda dice: blows.kill_now(dice.choice(("returns", "printing", "housekeeping")))),
    ("a worker asleep", 2, lambda dice: blows.asleep(dice.choice(("returns", "printing")), _some(dice, 1, 5))),
    ("broker killed with a backlog", 1, lambda _dice: blows.broker_killed_with_a_backlog),
    ("broker stopped", 2, lambda dice: blows.broker_stopped(_some(dice, 0.5, 2.5))),
    ("database away", 2, lambda dice: blows.database_away(_some(dice, 0.5, 2.5))),
    ("disk of the slips full", 1, lambda dice: blows.spool_disk_full(_some(dice, 0.5, 2))),
    ("disk of a journal full", 1, lambda dice: blows.journal_disk_full(_some(dice, 0.5, 2))),
    ("network", 5, lambda dice: blows.network(
        dice.choice(("cut", "reset", "stall", "refuse")), dice.choice(("workers", "stations", "database")), _some(dice, 0.2, 2)
    )),
)  # fmt: skip
"""What can happen in a random run, and how often of all."""


def _some(dice: random.Random, shortest: float, longest: float) -> float:
    return round(dice.uniform(shortest, longest), 1)


def _worker_point(dice: random.Random) -> tuple[str, str, str]:
    point = dice.choice(sorted(WORKER_POINTS))
    return dice.choice(WORKER_POINTS[point]), point, dice.choice(("process", "whole"))


@dataclass(frozen=True)
class Plan:
    """A random run, the same for the same seed."""

    seed: int
    setup: Setup
    blows: tuple[tuple[float, str, Blow], ...]
    """When (as the part of all scans that is answered), what in words, and what."""

    def strike(self, scene: Scene) -> Iterator[str]:
        """Let everything happen in turn; gives each blow's name before it falls."""
        dice = random.Random(self.seed)
        for at, name, blow in self.blows:
            due = int(at * scene.setup.scans)
            while (done := scene.answered()) < due:
                scene.until(lambda done=done: scene.answered() > done, "nothing goes on")  # type: ignore[misc]
            yield name
            blow(scene, dice)


def random_plan(seed: int, broker: str | None, database: str | None, *, big: bool = False) -> Plan:
    """A run made from `seed`: up to four stations and forty scans; `big`: twenty stations and a thousand scans."""
    dice = random.Random(f"{seed} {'big' if big else 'small'}")
    chosen = dice.choice(BROKERS), dice.choice(DATABASES)
    stations, scans, several = (20, 1000, 16) if big else (dice.randint(2, 4), dice.randint(12, 40), dice.randint(2, 4))
    items = [f"3100{number:06d}" for number in range(1, max(2, scans * 4 // 5) + 1)]
    order = items + dice.choices(items, k=scans - len(items))
    dice.shuffle(order)
    shifts = [
        Shift(f"main-desk-{number + 1}", tuple(order[number::stations]), pause=2.5 if big else 0.3)
        for number in range(stations)
    ]
    if dice.random() < 0.3:
        shifts[0] = replace(shifts[0], clock_off=dice.choice((-300.0, 300.0)))
    setup = Setup(
        broker or chosen[0],
        database or chosen[1],
        tuple(shifts),
        transport=dice.choice(("atomic", "atomic", "kombu")),
        returns_workers=dice.choice((1, 1, 2)),
        small_disks=("journals", "spool"),
    )
    weights = [weight for _, weight, _ in BLOWS]
    found = []
    for at in sorted(dice.uniform(0, 0.9) for _ in range(several)):
        name, _, make = dice.choices(BLOWS, weights)[0]
        found.append((at, name, make(dice)))
    return Plan(seed, setup, tuple(found))
