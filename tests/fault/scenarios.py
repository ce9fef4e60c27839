# SPDX-License-Identifier: Apache-2.0
"""The scenarios: each fault alone, and random scenarios generated from a seed."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tests.fault import faults
from tests.fault.cluster import Cluster, Setup
from tests.fault.faults import Fault, kill_at, under_load
from tests.fault.station import FAILPOINTS as STATION_FAILPOINTS
from tests.fault.station import Workload
from tests.fault.worker import FAILPOINTS as WORKER_FAILPOINTS

BROKERS = ("valkey", "rabbitmq")
DATABASES = ("sqlite", "postgres")
POOLED_DATABASE = "pgbouncer"
"""PostgreSQL through PgBouncer in transaction mode: runs only where it is selected."""

RETURNS_POINTS = ("before the transaction", "inside the transaction", "before the reply", "after the reply")
PRINTING_POINTS = ("inside the transaction", "before the slip", "after the slip", "before the reply", "after the reply")
HOUSEKEEPING_POINTS = ("before the transaction", "inside the transaction", "before the reply", "after the reply")


@dataclass(frozen=True)
class Scenario:
    """One fault, and the system that it is injected into."""

    name: str
    fault: Fault
    is_short: bool = False
    """Part of the short set."""
    brokers: tuple[str, ...] = BROKERS
    starts_stations: bool = True
    """Start the stations before the fault is injected."""
    options: dict[str, object] = field(default_factory=dict)
    """Arguments of the `Setup`."""
    workload: dict[str, object] = field(default_factory=dict)
    """Arguments of every station's `Workload`."""
    max_reply_seconds: float | None = None
    """Longest time from a scan to its reply."""

    def setup(self, broker: str, database: str, stations: int = 3, scans: int = 4) -> Setup:
        """A small system: each station scans some items, and one that another station scans as well."""
        workloads = tuple(
            Workload(
                code=f"main-desk-{number}",
                barcodes=(*(f"3100{number * scans + at:06d}" for at in range(scans)), f"3100{scans + 1:06d}"),
                pause=0.15,
                **self.workload,  # type: ignore[arg-type]
            )
            for number in range(1, stations + 1)
        )
        return Setup(broker, database, workloads, **self.options)  # type: ignore[arg-type]


def single_fault_scenarios(*, long: bool) -> tuple[Scenario, ...]:
    """Each fault alone. `long`: for the durations that the guarantees cover, for example a broker outage of 30 s."""
    outage, locked, stalled = (30.0, 12.0, 12.0) if long else (2.0, 2.0, 1.5)
    quick = {"inside the transaction", "before the reply"}
    return (
        Scenario("no fault", faults.none, is_short=True),
        *(
            Scenario(
                f"returns worker killed {point}", kill_at("returns", point, nth=2), point in quick, max_reply_seconds=15
            )
            for point in RETURNS_POINTS
        ),
        *(
            Scenario(f"a returns worker's process killed {point}", kill_at("returns", point, "process", 2))
            for point in RETURNS_POINTS
        ),
        Scenario("returns worker killed before the ack", kill_at("returns", "before the ack", nth=2)),
        Scenario(
            "returns worker killed, no resend",
            faults.in_sequence(
                kill_at("returns", "inside the transaction"), kill_at("returns", "after the commit", "process")
            ),
            is_short=True,
            workload={"resends": False},
        ),
        *(
            Scenario(f"print worker killed {point}", kill_at("printing", point, nth=2), point == "after the slip")
            for point in PRINTING_POINTS
        ),
        *(
            Scenario(f"housekeeping killed {point}", kill_at("housekeeping", point), point == "after the reply")
            for point in HOUSEKEEPING_POINTS
        ),
        *(
            Scenario(
                f"station killed {point}", kill_at("a station", point, nth=2), point == "before the reply is written"
            )
            for point in STATION_FAILPOINTS
        ),
        Scenario(
            "idle worker suspended with a message, then killed",
            faults.kill_with_a_prefetched_message, is_short=True, starts_stations=False,
        ),
        Scenario(
            "the same, kombu transport (Redis loses the message)",
            faults.kill_with_a_prefetched_message, brokers=("valkey",), starts_stations=False,
            options={"transport": "kombu"},
        ),
        Scenario(
            "worker suspended beyond the visibility timeout",
            under_load(faults.suspend("returns", 9.0)), options={"returns_workers": 2},
        ),
        Scenario("broker killed with a backlog", under_load(faults.kill_broker_with_backlog)),
        Scenario(f"broker suspended for {outage:g} s", under_load(faults.pause_broker(outage))),
        Scenario("database restarted, or locked", under_load(faults.make_database_unavailable(locked)), is_short=True),
        Scenario("disk of the slips full", under_load(faults.fill_spool_disk(3.0)), options={"small_disks": ("spool",)}),
        Scenario(
            "disk of a journal full", under_load(faults.fill_journal_disk(3.0)), options={"small_disks": ("journals",)}
        ),
        *(
            Scenario(f"network of the {whose} {words}", under_load(faults.network(kind, whose, stalled)))
            for whose in ("workers", "stations", "database")
            for kind, words in (("cut", "cut"), ("reset", "reset"), ("stall", f"stalled for {stalled:g} s"))
        ),
        Scenario("connections of the stations dropped unnoticed", under_load(faults.network("drop", "stations"))),
        Scenario("connections of the workers dropped unnoticed", under_load(faults.network("drop", "workers"))),
        Scenario("clock of the stations five minutes ahead", faults.none, workload={"clock_off": 300.0}),
        Scenario("clock of the stations five minutes behind", faults.none, workload={"clock_off": -300.0}),
    )  # fmt: skip


def redelivery_scenario(seconds: int) -> Scenario:
    """A killed worker without a resend by the station, with the program's production waits."""
    return Scenario(
        f"killed, by redelivery alone after {seconds} s",
        kill_at("returns", "inside the transaction"),
        options={"short_waits": False, "redis_visibility_timeout_seconds": seconds},
        workload={"resends": False},
        max_reply_seconds=180,
    )


WEIGHTED_FAULTS: tuple[tuple[str, int, Callable[[random.Random], Fault]], ...] = (
    ("a worker killed at a failpoint", 6, lambda rng: kill_at(*_worker_point(rng), nth=rng.randint(1, 4), must_fire=False)),
    ("a station killed at a failpoint", 3, lambda rng: kill_at("a station", rng.choice(STATION_FAILPOINTS), nth=rng.randint(1, 3), must_fire=False)),
    ("a worker killed", 3, lambda rng: faults.kill_now(rng.choice(("returns", "printing", "housekeeping")))),
    ("a worker suspended", 2, lambda rng: faults.suspend(rng.choice(("returns", "printing")), _seconds(rng, 1, 5))),
    ("broker killed with a backlog", 1, lambda _rng: faults.kill_broker_with_backlog),
    ("broker suspended", 2, lambda rng: faults.pause_broker(_seconds(rng, 0.5, 2.5))),
    ("database unavailable", 2, lambda rng: faults.make_database_unavailable(_seconds(rng, 0.5, 2.5))),
    ("disk of the slips full", 1, lambda rng: faults.fill_spool_disk(_seconds(rng, 0.5, 2))),
    ("disk of a journal full", 1, lambda rng: faults.fill_journal_disk(_seconds(rng, 0.5, 2))),
    ("network", 5, lambda rng: faults.network(
        rng.choice(("cut", "reset", "stall", "refuse")), rng.choice(("workers", "stations", "database")), _seconds(rng, 0.2, 2)
    )),
)  # fmt: skip
"""The faults of random scenarios: name, relative frequency, constructor."""


def _seconds(rng: random.Random, shortest: float, longest: float) -> float:
    return round(rng.uniform(shortest, longest), 1)


def _worker_point(rng: random.Random) -> tuple[str, str, str]:
    point = rng.choice(sorted(WORKER_FAILPOINTS))
    return rng.choice(WORKER_FAILPOINTS[point]), point, rng.choice(("process", "group"))


@dataclass(frozen=True)
class RandomScenario:
    """A scenario of several faults, the same for the same seed."""

    seed: int
    setup: Setup
    faults: tuple[tuple[float, str, Fault], ...]
    """Part of all scans that have a reply when the fault is injected; name; fault."""

    def inject(self, cluster: Cluster) -> Iterator[str]:
        """Inject the faults in turn; yield each name before its fault."""
        rng = random.Random(self.seed)
        for at, name, fault in self.faults:
            due = int(at * cluster.setup.scans)
            while (replied := cluster.replied()) < due:
                cluster.wait_until(lambda replied=replied: cluster.replied() > replied, "no further event gets a reply")  # type: ignore[misc]
            yield name
            fault(cluster, rng)


def random_scenario(seed: int, broker: str | None, database: str | None, *, large: bool = False) -> RandomScenario:
    """The scenario of `seed`: up to four stations and forty scans; `large`: twenty stations and a thousand scans."""
    rng = random.Random(f"{seed} {'big' if large else 'small'}")
    chosen = rng.choice(BROKERS), rng.choice(DATABASES)
    stations, scans, number_of_faults = (
        (20, 1000, 16) if large else (rng.randint(2, 4), rng.randint(12, 40), rng.randint(2, 4))
    )
    items = [f"3100{number:06d}" for number in range(1, max(2, scans * 4 // 5) + 1)]
    barcodes = items + rng.choices(items, k=scans - len(items))
    rng.shuffle(barcodes)
    workloads = [
        Workload(f"main-desk-{number + 1}", tuple(barcodes[number::stations]), pause=2.5 if large else 0.3)
        for number in range(stations)
    ]
    if rng.random() < 0.3:
        workloads[0] = replace(workloads[0], clock_off=rng.choice((-300.0, 300.0)))
    setup = Setup(
        broker or chosen[0],
        database or chosen[1],
        tuple(workloads),
        transport=rng.choice(("atomic", "atomic", "kombu")),
        returns_workers=rng.choice((1, 1, 2)),
        small_disks=("journals", "spool"),
    )
    weights = [weight for _, weight, _ in WEIGHTED_FAULTS]
    scheduled = []
    for at in sorted(rng.uniform(0, 0.9) for _ in range(number_of_faults)):
        name, _, create = rng.choices(WEIGHTED_FAULTS, weights)[0]
        scheduled.append((at, name, create(rng)))
    return RandomScenario(seed, setup, tuple(scheduled))
