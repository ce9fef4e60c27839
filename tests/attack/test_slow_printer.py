# SPDX-License-Identifier: Apache-2.0
"""A printer that never ends an exchange, beside a good one of the same worker."""

from contextlib import closing, contextmanager
from datetime import UTC, timedelta

import pytest
from sqlalchemy import insert, select, update

from schemas.models import Branch, PrintAttempt, Printer, PrintJob, Station
from schemas.print_jobs import PrintState as State
from tasks.printing.claim import LEASE
from tasks.printing.reconcile import dispatch_reconciliations, reconcile
from tests.polling import wait_until
from tests.printers import DrippingPrinter, ScriptedIppPrinter, ipp_printer, ipp_response

OPERATION, JOB, PRINTER = 1, 2, 4
ENUM, INTEGER = 0x23, 0x21


@contextmanager
def second_printer(library, uri):
    """A second printer of the branch, for the slips of `main-desk-2`."""
    with library.engine.begin() as connection:
        branch = connection.execute(select(Branch.id).where(Branch.code == "main")).scalar_one()
        printer_id = connection.execute(
            insert(Printer)
            .values(code="good-slips", branch_id=branch, uri=uri, media="label-4x6", is_default=False, on_hold=False)
            .returning(Printer.id)
        ).scalar_one()
        connection.execute(update(Station).where(Station.code == "main-desk-2").values(printer_id=printer_id))
    yield printer_id


def jobs(library, printer_id):
    with library.engine.connect() as connection:
        return connection.execute(
            select(PrintJob).where(PrintJob.printer_id == printer_id).order_by(PrintJob.created_at, PrintJob.id)
        ).all()


def attempts(library, printer_id):
    with library.engine.connect() as connection:
        return connection.execute(
            select(PrintAttempt).where(PrintAttempt.printer_id == printer_id).order_by(PrintAttempt.id)
        ).all()


@pytest.mark.long
@pytest.mark.thorough
@pytest.mark.databases("postgres")
@pytest.mark.timeout(240)
def test_dripping_printer_does_not_hold_another_one(library, deployment, raw_station, tmp_path):
    """One worker, two printers: while the first one drips, with slips to print and to poll for, the other one prints."""
    with (
        closing(DrippingPrinter("header")) as dripping,
        ipp_printer(tmp_path / "good") as good,
        second_printer(library, good.uri) as good_id,
    ):
        with library.engine.begin() as connection:
            connection.execute(
                update(Printer).where(Printer.id != good_id).values(uri=f"ipp://127.0.0.1:{dripping.port}/ipp/print")
            )
            bad_id = connection.execute(select(Printer.id).where(Printer.code == "main-slips")).scalar_one()
        with deployment.worker("returns"):
            for station in ("main-desk-1",) * 6 + ("main-desk-2",) * 2:
                _, [barcode] = library.request()
                raw_station.send(library.scan(barcode, station=station))
            wait_until(lambda: len(jobs(library, bad_id)) == 6 and len(jobs(library, good_id)) == 2, "8 Returns")
        with library.engine.begin() as connection:  # three wait in the dripping printer, and are due for a poll
            connection.execute(
                update(PrintJob)
                .where(PrintJob.id.in_([job.id for job in jobs(library, bad_id)[:3]]))
                .values(state=State.UNKNOWN, next_attempt_at=library.now)
            )
        with deployment.worker("housekeeping"), deployment.worker("printing", "--branch", "main"):
            wait_until(good.documents, "a slip of the good printer comes out")
            [first, *_] = attempts(library, bad_id)
            is_sending = first.ended_at is None
            wait_until(lambda: len(good.documents()) == 2, "all slips of the good printer come out")

        assert is_sending
        assert dripping.most_connections <= 2  # one process prints and one polls


@pytest.fixture
def unknown_jobs(create_print_job, engine, clock):
    """Three jobs in doubt of one printer, whose URI is given; all are due for a poll."""

    def create(uri):
        ids = [create_print_job() for _ in range(3)]
        with engine.begin() as connection:
            connection.execute(update(Printer).values(uri=uri))
            printer_id = connection.execute(select(Printer.id).where(Printer.code == "main-slips")).scalar_one()
            connection.execute(
                update(PrintJob).values(
                    state=State.UNKNOWN, printer_id=printer_id, next_attempt_at=clock.now - timedelta(seconds=1)
                )
            )
        return ids

    return create


def test_one_task_polls_a_printer_for_all_its_jobs(unknown_jobs, context, rows, clock):
    """The sweep dispatches one task for a printer, and none while that runs; the task polls for each due job."""
    asked = []

    def respond(operation):
        asked.append(operation)
        return ipp_response(0)

    with closing(ScriptedIppPrinter(respond)) as printer:
        unknown_jobs(printer.uri)

        [first] = dispatch_reconciliations(context)
        assert list(dispatch_reconciliations(context)) == []
        assert reconcile(first, context) is State.UNKNOWN

    assert len(asked) == 3 * 2  # Get-Jobs, not completed and completed
    assert {row.next_attempt_at for row in rows(PrintJob)} == {None}
    assert {row.lease_until for row in rows(PrintJob)} == {None}


def test_printer_that_cannot_be_queried_is_left_for_a_while(unknown_jobs, context, rows, clock):
    """After the first failed poll all due jobs of the printer wait: one deadline, not one for each job."""
    asked = []

    def respond(operation):
        asked.append(operation)
        return b"not IPP"

    with closing(ScriptedIppPrinter(respond)) as printer:
        unknown_jobs(printer.uri)
        [first] = dispatch_reconciliations(context)

        assert reconcile(first, context) is State.UNKNOWN

    assert len(asked) == 1
    assert list(dispatch_reconciliations(context)) == []
    assert all(row.next_attempt_at.replace(tzinfo=UTC) > clock.now for row in rows(PrintJob))


def test_printer_of_a_lost_task_is_polled_again(unknown_jobs, context, clock):
    """The worker died with the task: after the lease the sweep dispatches it again."""
    unknown_jobs("ipp://printer.invalid/ipp/print")
    [first] = dispatch_reconciliations(context)

    clock.now += LEASE + timedelta(seconds=1)

    assert list(dispatch_reconciliations(context)) == [first]
