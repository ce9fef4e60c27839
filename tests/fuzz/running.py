# SPDX-License-Identifier: Apache-2.0
"""One fuzz run: a broker, a database, a returns worker of two processes, mutated messages with honest scans between."""

import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from random import Random
from typing import Any, Final

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import sessionmaker
from uuid6 import uuid7

from schemas import signing
from schemas.circulation_events import (
    ItemLoaned,
    ItemsReceived,
    LoanDischarged,
    ReprintRequested,
    RequestCompleted,
    SlipSeen,
    UndoRequested,
)  # fmt: skip
from schemas.models import InboxEntry, MetricCell, OutboxEntry, QuarantinedMessage
from schemas.reasons import DeadLetterReason, RejectionReason
from schemas.topology import (
    ASK_REPRINT,
    COMPLETE_REQUEST,
    CONFIRM_SLIP,
    DISCHARGE_LOAN,
    LOAN_ITEM,
    PROCESS_RETURN,
    PROCESS_SCAN,
    PROCESS_UNDO,
    RECEIVE_ITEMS,
)  # fmt: skip
from tasks.context import Context
from tasks.metrics.definitions import DUPLICATES, QUARANTINED, REPLIES
from tasks.ports import DeadLetter, DeadLetters, Outgoing
from tasks.quarantine.maintenance import collect_dead_letters
from tests.fuzz.mutations import Golden, Sample, mutants
from tests.fuzz.publishing import Publisher
from tests.library import KEY, Library
from tests.polling import wait_until
from tests.processes import Deployment, children_of
from tests.raw_station import RawStation
from tests.task_context import NullPublisher
from workers.dead_letters import open_dead_letters

BATCH: Final = 200
"""Messages that are sent together; an honest scan follows."""
MAX_WAITING: Final = 2_000
"""Messages in the queue at which the run waits for the worker."""
STALLED_SECONDS: Final = 180.0
"""Time without any progress after which a message counts as lost."""
COLLECT_SECONDS: Final = 2.0
"""Interval at which the run collects dead letters and measures the memory, in seconds."""
MAX_GROWTH: Final = 200
"""MiB by which the worker's processes together may grow after the first tenth of the run."""


class ViolationError(Exception):
    """A property that the run proves does not hold. The text states which."""


@dataclass
class Figures:
    """The result of a run."""

    broker: str
    seed: int
    messages: int
    """Mutated messages that the broker accepted."""
    honest: int = 0
    performed: int = 0
    """Events processed for the first time, honest scans included."""
    repeated: int = 0
    """Events whose stored reply was published again."""
    quarantined: int = 0
    """Events rejected by validation."""
    dead_letters: int = 0
    mutations: dict[str, int] = field(default_factory=dict)
    quarantine_reasons: dict[str, int] = field(default_factory=dict)
    dead_letter_reasons: dict[str, int] = field(default_factory=dict)
    honest_seconds: dict[str, float] = field(default_factory=dict)
    """Time from sending an honest scan until its reply was received: median and longest."""
    memory: dict[str, int] = field(default_factory=dict)
    """MiB of the worker and its processes: after a tenth of the run, largest, at the end."""
    seconds: float = 0.0

    @property
    def accounted(self) -> int:
        """Messages that have an outcome."""
        return self.performed + self.repeated + self.quarantined + self.dead_letters


@dataclass(frozen=True)
class Scene:
    """The parts of a run."""

    deployment: Deployment
    library: Library
    engine: Engine
    publisher: Publisher


class _Counted:
    """The dead-letter queue, and the number of letters that were removed from it."""

    def __init__(self, letters: DeadLetters, removed: Counter[str]) -> None:
        self._letters, self._removed = letters, removed

    def peek(self, limit: int) -> Sequence[DeadLetter]:
        return self._letters.peek(limit)

    def remove(self, letters: Sequence[DeadLetter]) -> None:
        self._letters.remove(letters)
        self._removed["all"] += len(letters)

    def requeue(self, message: Outgoing) -> None:
        self._letters.requeue(message)


class Run:
    """One run. `step` reports progress for a person."""

    def __init__(self, scene: Scene, figures: Figures, step: Callable[[str], None]) -> None:
        self._scene, self._figures, self._step = scene, figures, step
        self._random = Random(figures.seed)
        self._removed: Counter[str] = Counter()
        self._signed: set[str] = set()
        """Fingerprints of all events that the station's key has signed."""
        self._sent_at: dict[str, float] = {}
        self._waits: list[float] = []
        self._rss: list[int] = []
        self._collected_at = 0.0

    def __call__(self) -> Figures:
        """Send, wait, and verify. Raises `ViolationError`."""
        scene, figures = self._scene, self._figures
        began = time.monotonic()
        with scene.deployment.worker("returns", "--concurrency", "2") as worker:
            station = RawStation(scene.deployment.broker_url)
            try:
                self._scan(station)
                self._receive(station)
                pool = sorted(children_of(worker))
                self._send(station, worker)
                self._wait_for_outcomes(station, worker)
                self._verify_worker(worker, pool)
                self._verify_slots(station, pool)
            finally:
                station.close()
        # The worker has written its last metrics.
        self._collect()
        self._count()
        figures.seconds = round(time.monotonic() - began, 1)
        self._verify()
        return figures

    # Sending

    def _send(self, station: RawStation, worker: subprocess.Popen[bytes]) -> None:
        figures, wanted = self._figures, self._figures.messages
        stream = mutants(self._random, self._goldens().__next__, KEY, with_entries=figures.broker != "rabbitmq")
        names: Counter[str] = Counter()
        sent = 0
        while sent < wanted:
            batch: list[Sample] = []
            for _ in range(min(BATCH, wanted - sent)):
                name, sample = next(stream)
                names[name] += 1
                batch.append(sample)
                if sample.signed is not None:
                    self._signed.add(signing.fingerprint(sample.signed))
            sent += self._scene.publisher.publish(batch)
            self._scan(station)
            self._poll(station, worker)
            if sent % (BATCH * 25) < BATCH:
                self._step(f"{sent} sent, {self._removed['all']} dead letters, {self._rss[-1]} MiB")
            while self._scene.publisher.waiting() > MAX_WAITING:
                self._poll(station, worker)
        figures.messages, figures.mutations = sent, dict(names)

    def _goldens(self) -> Iterator[Golden]:
        """Golden events of each task, with new ids. Half of them name a barcode that exists."""
        library = self._scene.library
        requests = [library.request() for _ in range(20)]
        earlier = [str(uuid7())]
        makers: list[Callable[[str, str], tuple[str, dict[str, Any]]]] = [
            lambda barcode, _: (PROCESS_SCAN, library.scan(barcode)),
            lambda barcode, _: (PROCESS_SCAN, library.scan(barcode, print_slip=False)),
            lambda _, request: (PROCESS_RETURN, library.return_requested(request)),
            lambda _barcode, _request: (PROCESS_UNDO, library.event(UndoRequested, undoes=earlier[-1], reason="x")),
            lambda barcode, request: (
                RECEIVE_ITEMS, library.event(ItemsReceived, request=request, items=[{"barcode": barcode + "9"}])
            ),
            lambda barcode, _: (LOAN_ITEM, library.event(ItemLoaned, barcode=barcode)),
            lambda barcode, _: (DISCHARGE_LOAN, library.event(LoanDischarged, barcode=barcode)),
            lambda _, request: (COMPLETE_REQUEST, library.event(RequestCompleted, request=request)),
            lambda barcode, _: (CONFIRM_SLIP, library.event(SlipSeen, slip=uuid7(), barcode=barcode)),
            lambda _barcode, _request: (ASK_REPRINT, library.event(ReprintRequested, reprints=earlier[-1], reason="x")),
        ]  # fmt: skip
        for make in cycle(makers):
            request, [barcode] = self._random.choice(requests)
            task, event = make(barcode, request)
            earlier[:] = [event["event_id"]]
            self._signed.add(signing.fingerprint(event))
            yield Golden(task, event)

    def _scan(self, station: RawStation) -> None:
        """Send an honest scan of a loaned item."""
        self._send_honest(station, self._scene.library.scan(self._scene.library.request()[1][0]))

    def _send_honest(self, station: RawStation, scan: dict[str, Any]) -> None:
        event_id = station.send(scan)
        self._sent_at[event_id] = time.monotonic()
        self._signed.add(signing.fingerprint(scan))
        self._figures.honest += 1

    # Receiving

    def _receive(self, station: RawStation) -> None:
        """Receive until each honest scan has its reply."""
        try:
            station.wait_until(lambda: not self._take(station), timeout=STALLED_SECONDS)
        except AssertionError:
            raise ViolationError(f"{len(self._sent_at)} honest scans have no reply.") from None

    def _take(self, station: RawStation) -> bool:
        """Take the received replies; True while an honest scan has none."""
        for reply in station.received:
            began = self._sent_at.pop(str(reply.get("event_id")), None)
            if began is not None:
                self._waits.append(time.monotonic() - began)
                if reply.get("outcome") != "returned":
                    raise ViolationError(f"An honest scan was {reply.get('outcome')} ({reply.get('reason')}).")
        station.received.clear()
        station.bodies.clear()
        station.sent.clear()
        return bool(self._sent_at)

    def _poll(self, station: RawStation, worker: subprocess.Popen[bytes]) -> None:
        """Receive what is there, collect dead letters, measure the memory."""
        deadline = time.monotonic() + 0.05
        station.wait_until(lambda: time.monotonic() > deadline)
        self._take(station)
        if worker.poll() is not None:
            raise ViolationError(f"The worker ended with code {worker.poll()}.")
        if time.monotonic() - self._collected_at > COLLECT_SECONDS:
            self._rss.append(memory_of(worker))
            with suppress(OperationalError):  # a broker under load: the next poll connects again
                self._collect()
            self._collected_at = time.monotonic()

    def _collect(self) -> None:
        url = self._scene.deployment.broker_url

        @contextmanager
        def opened() -> Iterator[DeadLetters]:
            with open_dead_letters(lambda: Connection(url)) as letters:
                yield _Counted(letters, self._removed)

        context = Context(
            sessionmaker(self._scene.engine, expire_on_commit=False), lambda: datetime.now(UTC), NullPublisher(),
            "the fuzz run", dead_letters=opened,
        )  # fmt: skip
        collect_dead_letters(context)

    def _wait_for_outcomes(self, station: RawStation, worker: subprocess.Popen[bytes]) -> None:
        """Wait until each message has an outcome, as long as there is progress."""
        last, since = -1, time.monotonic()
        while True:
            self._poll(station, worker)
            self._count()
            figures = self._figures
            if figures.accounted >= figures.messages + figures.honest and not self._sent_at:
                return
            if figures.accounted != last:
                last, since = figures.accounted, time.monotonic()
            if time.monotonic() - since > STALLED_SECONDS:
                return  # `_verify` reports it
            time.sleep(0.5)

    # Verification

    def _count(self) -> None:
        """Read the worker's sums from the database."""
        with self._scene.engine.connect() as connection:
            rows = connection.execute(
                select(MetricCell.metric, func.sum(MetricCell.number)).group_by(MetricCell.metric)
            ).all()
        sums = {metric: int(number) for metric, number in rows}
        self._figures.performed = sums.get(REPLIES.name, 0)
        self._figures.repeated = sums.get(DUPLICATES.name, 0)
        self._figures.quarantined = sums.get(QUARANTINED.name, 0)
        self._figures.dead_letters = self._removed["all"]

    def _verify_worker(self, worker: subprocess.Popen[bytes], pool: list[int]) -> None:
        if worker.poll() is not None:
            raise ViolationError(f"The worker ended with code {worker.poll()}.")
        if sorted(children_of(worker)) != pool:
            raise ViolationError(f"A process of the worker ended: {pool} became {sorted(children_of(worker))}.")

    def _verify_slots(self, station: RawStation, pool: list[int]) -> None:
        """Two scans run at once, one in each process: no slot is lost. The database is locked meanwhile."""
        control = Celery(broker=self._scene.deployment.broker_url).control
        database = self._scene.deployment.database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as holder:
            scans = [self._scene.library.scan(self._scene.library.request()[1][0]) for _ in pool]
            holder.execute("BEGIN IMMEDIATE")
            for scan in scans:
                self._send_honest(station, scan)
                time.sleep(0.2)  # one process each, not both in one transaction

            def busy() -> bool:
                replies = control.inspect(timeout=1.0).active() or {}
                return {task["worker_pid"] for tasks in replies.values() for task in tasks} >= set(pool)

            try:
                wait_until(busy, "each process of the worker runs a scan", timeout=STALLED_SECONDS)
            except AssertionError:
                raise ViolationError("A process of the worker gets no work: its slot is lost.") from None
            finally:
                holder.execute("ROLLBACK")
        self._receive(station)

    def _verify(self) -> None:
        figures = self._figures
        with self._scene.engine.connect() as connection:
            grouped = select(QuarantinedMessage.reason, func.sum(QuarantinedMessage.times)).group_by(
                QuarantinedMessage.reason
            )
            reasons = {str(reason): int(number) for reason, number in connection.execute(grouped).all()}
            performed = set(connection.execute(select(InboxEntry.fingerprint)).scalars())
            replies = connection.execute(
                select(func.count()).select_from(OutboxEntry).where(OutboxEntry.task.is_(None))
            ).scalar_one()
        figures.quarantine_reasons = {name: reasons[name] for name in reasons if name in set(RejectionReason)}
        figures.dead_letter_reasons = {name: reasons[name] for name in reasons if name in set(DeadLetterReason)}
        figures.memory = {
            "after_a_tenth": self._rss[len(self._rss) // 10], "largest": max(self._rss), "at_the_end": self._rss[-1],
        }  # fmt: skip
        waits = sorted(self._waits)
        figures.honest_seconds = {"median": round(waits[len(waits) // 2], 3), "longest": round(waits[-1], 3)}
        unknown = set(reasons) - set(RejectionReason) - set(DeadLetterReason)
        checks = {
            f"Reasons that are not defined: {sorted(unknown)}": not unknown,
            f"{figures.messages + figures.honest} messages were sent, {figures.accounted} have an outcome": (
                figures.accounted == figures.messages + figures.honest
            ),
            f"{len(self._sent_at)} honest scans have no reply": not self._sent_at,
            f"{len(performed - self._signed)} events were performed that no station signed": performed <= self._signed,
            f"{replies} replies are committed and not published": replies == 0,
            f"The worker grew from {figures.memory['after_a_tenth']} to {figures.memory['largest']} MiB": (
                figures.memory["largest"] - figures.memory["after_a_tenth"] <= MAX_GROWTH
            ),
        }
        broken = [text for text, holds in checks.items() if not holds]
        if broken:
            raise ViolationError("; ".join(broken))


def memory_of(worker: subprocess.Popen[bytes]) -> int:
    """Resident memory of a worker and its processes together, in MiB."""
    pids = ",".join(map(str, (worker.pid, *children_of(worker))))
    listed = subprocess.run(["ps", "-o", "rss=", "-p", pids], capture_output=True, text=True, check=False)
    return sum(map(int, listed.stdout.split())) // 1024
