# SPDX-License-Identifier: Apache-2.0
"""Return with a slip on each kind of printer: in the printer's language, and in the right state after a failure."""

from contextlib import closing
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import sessionmaker

from schemas.models import Printer, PrintJob
from schemas.print_jobs import PrintState as State
from schemas.slip_codes import slip_code
from tasks.context import Context
from tasks.events.processing import process_in
from tasks.printing.handler import print_job
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tests.clock import Clock
from tests.polling import wait_until
from tests.printers import FaultyConnection, LabelPrinter, ipp_printer
from tests.slip_images import decode_barcodes, image_of_pdf, image_of_zpl
from tests.task_context import POLICY, NullPublisher


@pytest.fixture
def print_return(library, engine):
    """Return an item whose branch has the printer `uri`; return the final state, the print job and the barcode."""
    context = Context(
        sessionmaker(engine, expire_on_commit=False), Clock(datetime.now(UTC)), NullPublisher(), "this-worker"
    )

    def make(uri, media="label-4x6"):
        with engine.begin() as connection:
            connection.execute(update(Printer).values(uri=uri, media=media))
        _, [barcode] = library.request()
        with context.unit_of_work() as uow:
            process_in(uow, [Received(library.scan(barcode), None)], RETURN_HANDLER, POLICY)
        with context.sessions() as session:
            job_id = session.execute(select(PrintJob.id)).scalar_one()
        state = print_job(job_id, context, lambda: 0.0)
        with context.sessions() as session:
            return state, session.execute(select(PrintJob)).scalar_one(), barcode

    return make


@pytest.mark.parametrize("media", ["label-4x6", "receipt-80"])
def test_label_printer_receives_zpl(print_return, media):
    """A printer on a port gets ZPL for its medium, with the job's name; both codes are decodable."""
    with closing(LabelPrinter()) as printer:
        state, job, barcode = print_return(printer.uri, media)

        wait_until(printer.documents, "the label is there")
        [label] = printer.documents()

    assert state == State.DONE
    assert f"^FX {job.id}".encode() in label
    assert decode_barcodes(image_of_zpl(label)) == sorted([barcode, slip_code(job.id)])


def test_ipp_printer_receives_a_pdf(print_return, tmp_path):
    """An IPP printer gets a PDF, and its job number is stored for reconciling."""
    with ipp_printer(tmp_path / "ipp") as printer:
        state, job, barcode = print_return(printer.uri, "a6")

        wait_until(printer.documents, "the slip is there")
        [page] = printer.documents()

    assert (state, job.state, job.spool_id) == (State.ACCEPTED, State.ACCEPTED, "1")
    assert decode_barcodes(image_of_pdf(page)) == sorted([barcode, slip_code(job.id)])


def test_label_printer_with_a_sheet_medium_fails_safe(print_return):
    """For a label printer with the medium A4 nothing is sent, and the error names the medium."""
    with closing(LabelPrinter()) as printer:
        state, job, _ = print_return(printer.uri, "a4-corner")

        assert printer.documents() == []

    assert state == State.FAILED_SAFE
    assert "a4-corner" in job.last_error


def test_printer_reset_mid_job_leaves_the_slip_unknown(print_return):
    """A label printer that is switched off mid-job: an operator decides, and nothing is sent again automatically."""
    with closing(FaultyConnection("reset", 0)) as line:
        state, job, _ = print_return(f"socket://127.0.0.1:{line.port}")

    assert state == State.UNKNOWN
    assert "closed the connection" in job.last_error
