# SPDX-License-Identifier: Apache-2.0
"""A model of the print queue: printer and workers fail in any order; no second unmarked slip, no job left behind."""

import contextlib
import shutil
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select
from sqlalchemy.orm import sessionmaker

from schemas.database import open_engine
from schemas.models import PrintJob
from schemas.print_jobs import IN_HAND, WAITING
from schemas.print_jobs import PrintState as State
from tasks.context import Context
from tasks.events.processing import process_in
from tasks.operator import Operator
from tasks.printing import actions
from tasks.printing.actions import RefusedActionError
from tasks.printing.dispatch import dispatch_due_jobs
from tasks.printing.handler import print_job
from tasks.printing.printers.driver import PrinterInterruptedError, PrinterUnavailableError
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tests.clock import Clock
from tests.library import Library
from tests.task_context import POLICY, NullPublisher

pytestmark = [pytest.mark.long, pytest.mark.thorough]


class WorkerKilledError(BaseException):
    """The worker is killed at this point."""


class FailingPrinter:
    """A printer that cannot repeat and does not track jobs. It behaves as `fate` names, and counts its slips."""

    can_repeat = False
    writes_files = False
    tracks_jobs = False
    language = "pdf"

    def __init__(self) -> None:
        self.fate = "prints"
        self.slips: Counter[str] = Counter()

    def send(self, document, *, job_name, on_first_byte):
        """Print, or fail at the point that `fate` names."""
        match self.fate:
            case "is away":
                raise PrinterUnavailableError("no paper")
            case "killed before":
                raise WorkerKilledError
        on_first_byte()
        match self.fate:
            case "killed at first byte":
                raise WorkerKilledError
            case "refuses":
                raise PrinterUnavailableError("not accepting jobs")
            case "cut off without paper":
                raise PrinterInterruptedError("it hung up")
        self.slips[job_name] += 1
        match self.fate:
            case "cut off with paper":
                raise PrinterInterruptedError("it hung up")
            case "killed after":
                raise WorkerKilledError
        return job_name


FATES = (
    "prints", "is away", "refuses", "killed before", "killed at first byte", "cut off without paper",
    "cut off with paper", "killed after",
)  # fmt: skip


class PrintQueue(RuleBasedStateMachine):
    """Returns, print tasks, sweeps, time and operators, in any order."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="bd-"))
        shutil.copy(self.template, self.folder / "bookdrop.db")
        self.engine = open_engine(f"sqlite:///{self.folder / 'bookdrop.db'}")
        self.library = Library(self.engine, self.folder / "spool").open()
        self.clock = Clock(datetime.now(UTC))
        self.printer = FailingPrinter()
        self.workers = 0
        self.orders: list = []
        self.patches = [
            patch("tasks.printing.handler.open_printer", lambda _uri: self.printer),
            patch("tasks.printing.claim.open_printer", lambda _uri: self.printer),
        ]
        for each in self.patches:
            each.start()

    def context(self) -> Context:
        """The context of a new worker."""
        self.workers += 1
        sessions = sessionmaker(self.engine, expire_on_commit=False)
        return Context(sessions, self.clock, NullPublisher(), f"worker-{self.workers}")

    def jobs(self):
        with self.engine.connect() as connection:
            return connection.execute(select(PrintJob).order_by(PrintJob.id)).all()

    def work(self, job_id, fate):
        self.printer.fate = fate
        with contextlib.suppress(WorkerKilledError):
            print_job(job_id, self.context(), lambda: 0.0)

    @initialize()
    def begin_with_three_jobs(self):
        """Start with three jobs; an empty queue tests nothing."""
        for _ in range(3):
            self.return_with_slip()

    @rule()
    def return_with_slip(self):
        """Return an item with a slip."""
        _, [barcode] = self.library.request()
        with self.context().unit_of_work() as uow:
            process_in(uow, [Received(self.library.scan(barcode), None)], RETURN_HANDLER, POLICY)

    @rule(fate=st.sampled_from(FATES), which=st.integers(0, 99))
    def run_print_task(self, fate, which):
        """Run the print task of any job, possibly again."""
        if jobs := self.jobs():
            self.work(jobs[which % len(jobs)].id, fate)

    @rule(fate=st.sampled_from(FATES[1:]), which=st.integers(0, 2))
    def fail_later(self, fate, which):
        """Run the print task of one of the first jobs after two minutes, with a failure."""
        self.clock.now += timedelta(minutes=2)
        self.work(self.jobs()[which].id, fate)

    @rule(fate=st.sampled_from(FATES))
    def sweep(self, fate):
        """Dispatch and run due jobs."""
        for job_id in dispatch_due_jobs(self.context()):
            self.work(job_id, fate)

    @rule(minutes=st.sampled_from([0.1, 1, 5, 60]))
    def advance_clock(self, minutes):
        """End leases and backoffs."""
        self.clock.now += timedelta(minutes=minutes)

    @rule(which=st.integers(0, 99), what=st.sampled_from(["retry", "reprint", "mark_printed", "cancel"]))
    def act(self, which, what):
        """Perform an operator's action, permitted or not."""
        if jobs := self.jobs():
            by = Operator("ops", "seen to")
            with contextlib.suppress(RefusedActionError):
                getattr(actions, what)(jobs[which % len(jobs)].id, by, self.context())

    @invariant()
    def at_most_one_slip_for_each_number(self):
        """No slip is printed twice under one number; a copy is marked."""
        assert not [name for name, count in self.printer.slips.items() if count > 1]
        names = [(job.event_id, job.item_id, job.copy_number) for job in self.jobs()]
        assert len(names) == len(set(names))

    def teardown(self):
        """Repair the printer and advance the clock: then no job waits, and each done job was printed once."""
        try:
            for _ in range(12):
                self.clock.now += timedelta(minutes=10)
                for job_id in dispatch_due_jobs(self.context()):
                    self.work(job_id, "prints")
            for job in self.jobs():
                assert job.state not in WAITING | IN_HAND, job.state
                if job.state is State.DONE and job.spool_id is not None:
                    assert self.printer.slips[job.spool_id] == 1
            self.at_most_one_slip_for_each_number()
        finally:
            for each in self.patches:
                each.stop()
            self.engine.dispose()
            shutil.rmtree(self.folder)


def test_any_order_of_failures_prints_each_slip_at_most_once(sqlite_template):
    """At most one unmarked slip is printed, and no job is left behind."""
    PrintQueue.template = sqlite_template
    run_state_machine_as_test(
        PrintQueue,
        settings=settings(
            max_examples=40,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes minutes with a database in it
        ),
    )
