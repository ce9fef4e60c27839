# SPDX-License-Identifier: Apache-2.0
"""Every printer driver with a printer: its contract, with and without faults."""

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pytest

from tasks.printing.claim import LEASE
from tasks.printing.printers import factory
from tasks.printing.printers.driver import (
    Completed,
    JobTrackingDriver,
    Lost,
    PrinterDriver,
    PrinterInterruptedError,
    PrinterUnavailableError,
    UnknownJob,
    Waiting,
    is_job_tracking,
)
from tasks.printing.printers.timeouts import PrinterTimeouts
from tests.network import free_port, issue_certificate, tls_proxy
from tests.polling import wait_until
from tests.printers import PDF, DrippingPrinter, FaultyConnection, LabelPrinter, cups_server, ipp_printer

LONG = PrinterTimeouts()
PATIENT = PrinterTimeouts(*(timedelta(seconds=90) for _ in range(5)))
"""Longer than a busy machine takes: for every test in which something else than a timeout ends the exchange."""
IMPATIENT = replace(PATIENT, exchange=timedelta(seconds=1), query=timedelta(seconds=1), status=timedelta(seconds=0.5))
"""For a printer that does not respond, where the timeout is the subject of the test."""
LARGE = PDF + b"% more\n" * 200_000
"""More than the buffers between us and a printer hold, so that one that does not read is noticed."""

READY = b"\x02030,0,0,1245,000,0,0,0,000,0,0,0\x03\r\n\x02000,0,0,0,0,2,4,0,00000000,1,000\x03\r\n\x021234,0\x03\r\n"
NO_PAPER = READY.replace(b"030,0,0,", b"030,1,0,")
HEAD_UP_AND_PAUSED = READY.replace(b"030,0,0,", b"030,0,1,").replace(b"000,0,0,0,0,2", b"000,0,1,0,0,2")


@dataclass
class Spool:
    """A folder with the interface of the other printers."""

    folder: Any

    @property
    def uri(self):
        return f"spool://{self.folder}"

    def documents(self):
        return [path.read_bytes() for path in sorted(self.folder.glob("*.pdf"))]


@dataclass
class Queue:
    """A queue of a CUPS server, with a printer behind it."""

    server: Any
    printer: Any

    @property
    def uri(self):
        return self.server.uri

    def documents(self):
        return self.printer.documents()


@pytest.fixture
def start_printer(tmp_path, monkeypatch):
    """Start a printer of a kind, which is switched off after the test."""
    with ExitStack() as stack:

        def make(kind, **options):
            match kind:
                case "spool":
                    return Spool(tmp_path / "slips")
                case "ipp":
                    return stack.enter_context(ipp_printer(tmp_path / "ipp", **options))
                case "lp":
                    printer = stack.enter_context(ipp_printer(tmp_path / "ipp"))
                    root = Path(stack.enter_context(TemporaryDirectory(prefix="bd-")))  # short: it holds a socket
                    server = stack.enter_context(cups_server(root, printer.uri))
                    server.start(**options)
                    monkeypatch.setenv("CUPS_SERVER", str(server.socket))
                    return Queue(server, printer)
                case "socket":
                    return stack.enter_context(closing(LabelPrinter(**options)))

        maker: Any = make
        maker.connect = lambda fault, printer: stack.enter_context(closing(FaultyConnection(fault, printer.port)))
        yield maker


def opened(uri: str, timeouts: PrinterTimeouts = PATIENT) -> PrinterDriver:
    """The driver of the printer at `uri`."""
    return factory.open_printer(uri, timeouts)


def ignore():
    """Ignore the first byte."""


def tracking(driver: PrinterDriver) -> JobTrackingDriver:
    """The driver of a printer that knows its jobs."""
    assert is_job_tracking(driver)
    return driver


def print_and_wait(uri):
    """Print a slip, and wait until the printer is ready for the next one."""
    driver = tracking(opened(uri))
    spool_id = driver.send(PDF, job_name="job-2", on_first_byte=ignore)
    wait_until(lambda: driver.job_fate(spool_id) == Completed(), "the job is done")


def through(line, printer):
    """The printer's URI over a faulty connection."""
    return printer.uri.replace(f":{printer.port}", f":{line.port}")


@pytest.mark.parametrize("kind", ["spool", "ipp", "lp", "socket"])
def test_slip_arrives_complete_and_once(start_printer, kind):
    """The printer receives the slip byte for byte; the first byte is announced before anything is sent."""
    printer = start_printer(kind)
    seen = []

    name = opened(printer.uri).send(LARGE, job_name="job-1", on_first_byte=lambda: seen.append(printer.documents()))

    wait_until(lambda: printer.documents() == [LARGE], "the slip is there")
    assert seen == [[]]
    assert name


@pytest.mark.parametrize("kind", ["spool", "ipp", "lp", "socket"])
def test_slip_stopped_at_its_first_byte_sends_nothing(start_printer, kind):
    """Stopped at the first byte, because another worker claimed the job: nothing is sent, and the next slip is."""
    printer = start_printer(kind)
    driver = opened(printer.uri)

    def stop():
        raise LookupError

    with pytest.raises(LookupError):
        driver.send(b"%PDF stopped", job_name="job-1", on_first_byte=stop)

    driver.send(PDF, job_name="job-2", on_first_byte=ignore)
    wait_until(printer.documents, "the second slip is there")
    assert printer.documents() == [PDF]


@pytest.mark.parametrize(("kind", "options"), [("spool", {}), ("ipp", {}), ("lp", {}), ("socket", {"status": READY})])
def test_ready_printer_reports_ready(start_printer, kind, options):
    """A working printer reports that it is ready, and receives no slip for the query."""
    printer = start_printer(kind, **options)

    status = opened(printer.uri).status()

    assert status.ready
    assert not status.reasons
    assert printer.documents() == []


@pytest.mark.parametrize("uri", ["ipp://localhost:{}/ipp/print", "socket://localhost:{}"])
def test_switched_off_printer_leaves_the_slip_unsent(uri):
    """Refused connections: no first byte was announced, the slip may be sent again, and the error names the cause."""
    driver = opened(uri.format(free_port()))
    announced = []

    with pytest.raises(PrinterUnavailableError, match="refuses connections"):
        driver.send(PDF, job_name="job-1", on_first_byte=lambda: announced.append(1))

    assert announced == []
    assert not driver.status().ready
    assert "refuses connections" in driver.status().description


@pytest.mark.parametrize("uri", ["ipp://no-such-printer.invalid/ipp/print", "socket://no-such-printer.invalid"])
def test_unknown_host_name_is_reported(uri):
    """An unknown host is an unavailable printer."""
    with pytest.raises(PrinterUnavailableError, match=r"no-such-printer\.invalid"):
        opened(uri).send(PDF, job_name="job-1", on_first_byte=ignore)


@pytest.mark.parametrize("kind", ["ipp", "socket"])
@pytest.mark.parametrize(
    ("fault", "timeouts", "words"), [("hang", IMPATIENT, "in time"), ("reset", PATIENT, "closed the connection")]
)
@pytest.mark.parametrize("document", [PDF * 45, LARGE], ids=["small enough for our buffers", "large"])
def test_printer_failing_mid_job_leaves_the_result_unknown(start_printer, kind, fault, timeouts, words, document):
    """Not read, or reset mid-job: a byte may have left, so the slip may not be sent again."""
    printer = start_printer(kind)
    driver = opened(through(start_printer.connect(fault, printer), printer), timeouts)
    announced = []

    with pytest.raises(PrinterInterruptedError, match=words):
        driver.send(document, job_name="job-1", on_first_byte=lambda: announced.append(1))

    assert announced == [1]
    assert printer.documents() == []


@pytest.mark.parametrize("part", ["read", "status line", "header", "body", "continue"])
def test_dripping_printer_is_ended_at_the_deadline(part):
    """A printer that is never silent and never done: the slip ends at the deadline of the whole exchange."""
    with closing(DrippingPrinter(part)) as printer:
        driver = opened(f"ipp://127.0.0.1:{printer.port}/ipp/print", IMPATIENT)

        with pytest.raises(PrinterInterruptedError, match="in time"):
            driver.send(LARGE * 6, job_name="job-1", on_first_byte=ignore)
        assert "in time" in driver.status().description
        with pytest.raises(PrinterUnavailableError, match="in time"):
            tracking(driver).job_fate("7")
        with pytest.raises(PrinterUnavailableError, match="in time"):
            tracking(driver).find_job("job-1")


def test_dripping_handshake_is_ended_before_the_first_byte():
    """An encrypted printer that never ends the handshake has received nothing of the slip."""
    with closing(DrippingPrinter("handshake")) as printer:
        driver = opened(f"ipps://127.0.0.1:{printer.port}/ipp/print?certificate=any", IMPATIENT)

        with pytest.raises(PrinterUnavailableError, match="in time"):
            driver.send(PDF, job_name="job-1", on_first_byte=ignore)


@pytest.mark.parametrize(("part", "ready"), [("read", True), ("label status", True)])
def test_dripping_label_printer_is_ended_at_the_deadline(part, ready):
    """A label printer that reads a byte at a time, or never ends its status."""
    with closing(DrippingPrinter(part)) as printer:
        driver = opened(f"socket://127.0.0.1:{printer.port}", IMPATIENT)

        with pytest.raises(PrinterInterruptedError, match="in time"):
            driver.send(LARGE * 6, job_name="job-1", on_first_byte=ignore)
        assert driver.status().ready is ready


def test_cups_queue_that_drips_is_ended_at_the_deadline(monkeypatch):
    """A queue of a print server that never ends its response."""
    with closing(DrippingPrinter("header")) as printer:
        monkeypatch.setenv("CUPS_SERVER", f"127.0.0.1:{printer.port}")

        with pytest.raises(PrinterInterruptedError, match="in time"):
            opened("lp://slips", IMPATIENT).send(PDF, job_name="job-1", on_first_byte=ignore)


def test_response_without_an_end_is_ended_at_its_size():
    """A printer that sends as fast as it is read, without an end: the driver reads a bounded number of bytes."""
    with closing(DrippingPrinter("flood")) as printer:
        driver = opened(f"ipp://127.0.0.1:{printer.port}/ipp/print")

        with pytest.raises(PrinterInterruptedError, match="not as a printer does"):
            driver.send(PDF, job_name="job-1", on_first_byte=ignore)


def test_reset_after_the_whole_label_leaves_the_result_unknown(start_printer):
    """All was sent, and then the connection is reset: the printer may have been switched off before it read everything."""
    printer = start_printer("socket")
    driver = opened(through(start_printer.connect("late reset", printer), printer))

    with pytest.raises(PrinterInterruptedError, match="closed the connection"):
        driver.send(b"^XA" + b"^FX small enough for the printer's buffers" * 60, job_name="job-1", on_first_byte=ignore)


def test_early_refusal_is_read(start_printer):
    """A printer that refuses a document by its size does not read it first: its response counts anyway."""
    printer = start_printer("ipp")
    driver = opened(through(start_printer.connect("too large", printer), printer))

    with pytest.raises(PrinterUnavailableError, match="does not accept a document of this size"):
        driver.send(LARGE * 6, job_name="job-1", on_first_byte=ignore)


@pytest.mark.parametrize("kind", ["ipp", "socket"])
def test_slow_printer_receives_its_slip(start_printer, kind):
    """A printer that reads slowly gets its slip."""
    printer = start_printer(kind)
    driver = opened(through(start_printer.connect("slow", printer), printer))

    driver.send(PDF * 1000, job_name="job-1", on_first_byte=ignore)

    wait_until(lambda: printer.documents() == [PDF * 1000], "the slip is there")


def test_printer_timeouts_are_shorter_than_the_lease():
    """All timeouts together are shorter than a lease, or another worker would claim the job meanwhile."""
    assert LONG.exchange + 2 * LONG.query + LONG.close < LEASE
    assert LONG.connect < LONG.query


def test_job_with_a_lost_response_is_found_by_its_name(start_printer):
    """The printer accepted the slip and its response was lost: queried by name, it returns the job and its result."""
    printer = start_printer("ipp")
    driver = opened(through(start_printer.connect("lose response", printer), printer))

    with pytest.raises(PrinterInterruptedError):
        driver.send(PDF, job_name="job-17", on_first_byte=ignore)

    asked = tracking(opened(printer.uri))
    found = asked.find_job("job-17")
    assert found is not None
    assert asked.find_job("job-1") is None
    wait_until(lambda: asked.job_fate(found, job_name="job-17") == Completed(), "the job is done")
    assert printer.documents() == [PDF]


def test_printer_without_paper_prints_after_a_refill(start_printer):
    """Without paper a slip is accepted and waits, and the printer reports the cause; after a refill it is printed."""
    printer = start_printer("ipp")
    driver = tracking(opened(printer.uri))
    printer.paper_out()

    assert driver.status().description == "no paper"
    spool_id = driver.send(PDF, job_name="job-1", on_first_byte=ignore)
    fate = driver.job_fate(spool_id)
    assert isinstance(fate, Waiting)
    assert "media-empty" in fate.reasons

    printer.refill()

    wait_until(lambda: driver.job_fate(spool_id) == Completed(), "the job is done")
    assert driver.status().description == "ready"


def test_busy_printer_leaves_the_slip_unsent(start_printer):
    """A printer that reports that it did not accept the slip is trusted; the slip may be sent again."""
    printer = start_printer("ipp")
    driver = opened(printer.uri)
    printer.paper_out()
    driver.send(PDF, job_name="job-1", on_first_byte=ignore)

    with pytest.raises(PrinterUnavailableError, match="busy with another job: Currently printing another job"):
        driver.send(PDF, job_name="job-2", on_first_byte=ignore)


def test_printer_without_pdf_support_refuses(start_printer):
    """A document format that the printer does not support is refused, and nothing is printed."""
    printer = start_printer("ipp", document_format="image/urf")

    with pytest.raises(
        PrinterUnavailableError, match="does not accept slips as they are sent: Unsupported document-format"
    ):
        opened(printer.uri).send(PDF, job_name="job-1", on_first_byte=ignore)


def test_wrong_printer_path_is_reported(start_printer):
    """At a wrong path the slip is not sent, and the error names the URI."""
    printer = start_printer("ipp")

    with pytest.raises(PrinterUnavailableError, match=r"ipp/wrong"):
        opened(printer.uri.replace("print", "wrong")).send(PDF, job_name="job-1", on_first_byte=ignore)


def test_restarted_printer_has_no_record_of_its_jobs(start_printer):
    """Killed mid-job it cannot be queried; restarted it does not know the job, and its numbers restart."""
    printer = start_printer("ipp")
    driver = tracking(opened(printer.uri))
    printer.paper_out()
    spool_id = driver.send(PDF, job_name="job-1", on_first_byte=ignore)

    printer.stop()
    with pytest.raises(PrinterUnavailableError):
        driver.job_fate(spool_id)
    printer.start()

    assert isinstance(driver.job_fate(spool_id), UnknownJob)
    assert driver.find_job("job-1") is None
    assert driver.send(PDF, job_name="job-2", on_first_byte=ignore) == spool_id
    assert isinstance(driver.job_fate(spool_id, job_name="job-1"), UnknownJob)


def test_cups_queue_reports_the_result_of_its_jobs(start_printer):
    """A job of a CUPS queue is tracked to its end, and found by its name before and after."""
    queue = start_printer("lp")
    driver = tracking(opened(queue.uri))
    queue.printer.paper_out()

    spool_id = driver.send(PDF, job_name="job-17", on_first_byte=ignore)
    assert driver.find_job("job-17") == spool_id
    queue.printer.refill()

    wait_until(lambda: driver.job_fate(spool_id, job_name="job-17") == Completed(), "the job is done")
    assert driver.find_job("job-17") == spool_id
    assert driver.find_job("job-1") is None
    assert queue.documents() == [PDF]


def test_paused_cups_queue_accepts_slips(start_printer):
    """A slip for a paused queue waits there, reported as paused, and is known after a restart of the server."""
    queue = start_printer("lp", paused=True)
    driver = tracking(opened(queue.uri))

    status = driver.status()
    spool_id = driver.send(PDF, job_name="job-1", on_first_byte=ignore)

    assert (status.ready, status.description) == (False, "paused")
    assert driver.job_fate(spool_id) == Waiting(("paused",))
    queue.server.stop()
    queue.server.start()
    wait_until(lambda: driver.job_fate(spool_id, job_name="job-1") == Completed(), "the job is done")
    assert queue.documents() == [PDF]


def test_rejecting_cups_queue_leaves_the_slip_unsent(start_printer):
    """A queue that rejects jobs refuses the slip, which may be sent again."""
    queue = start_printer("lp", accepting=False)
    driver = opened(queue.uri)

    assert not driver.status().ready
    with pytest.raises(PrinterUnavailableError, match="accepts no jobs"):
        driver.send(PDF, job_name="job-1", on_first_byte=ignore)


@pytest.mark.parametrize("state", ["no queue of that name", "no server"])
def test_missing_cups_queue_or_server_is_reported(start_printer, state):
    """For an unknown queue and a stopped server the slip is not sent, and the error names the cause."""
    queue = start_printer("lp")
    driver = opened("lp://slipz")
    if state == "no server":
        queue.server.stop()

    with pytest.raises(PrinterUnavailableError, match="has no such queue" if "queue" in state else "not there"):
        driver.send(PDF, job_name="job-1", on_first_byte=ignore)


def test_aborted_job_is_reported_as_lost(start_printer):
    """A job that fails in the printer is reported as lost, never as done."""
    printer = start_printer("ipp", command="/bin/false")
    driver = tracking(opened(printer.uri))

    spool_id = driver.send(PDF, job_name="job-1", on_first_byte=ignore)

    wait_until(lambda: driver.job_fate(spool_id) == Lost("the printer gave it up"), "the job is given up")


@pytest.mark.parametrize(
    ("status", "timeouts", "ready", "words"),
    [
        (READY, PATIENT, True, "ready"),
        (NO_PAPER, PATIENT, False, "no paper"),
        (HEAD_UP_AND_PAUSED, PATIENT, False, "paused; a cover is open"),
        (b"\x02030,0\x03", IMPATIENT, True, "does not report its status"),
        (b"HTTP/1.0 400 Bad Request\r\n\r\n", IMPATIENT, True, "does not report its status"),
        (b"", IMPATIENT, True, "does not report its status"),
    ],
)
def test_label_printer_reports_its_status(start_printer, status, timeouts, ready, words):
    """Queried with ~HS a label printer reports paper, pause and head; without a response it is presumed ready."""
    printer = start_printer("socket", status=status)

    reported = opened(printer.uri, timeouts).status()

    assert (reported.ready, reported.description) == (ready, words)
    assert printer.documents() == []


def test_self_signed_printer_needs_its_certificate(start_printer):
    """A self-signed printer is refused until its certificate, or any certificate, is configured."""
    printer = start_printer("ipp")
    uri = printer.uri.replace("ipp://", "ipps://")
    opened(f"{uri}?certificate=any").status()  # it makes its certificate when it is first asked
    [its_own] = printer.folder.glob("*.crt")

    with pytest.raises(PrinterUnavailableError, match="certificate that is not trusted"):
        opened(uri).send(PDF, job_name="job-1", on_first_byte=ignore)
    for trusted in ("any", its_own):
        print_and_wait(f"{uri}?certificate={trusted}")


@pytest.fixture
def encrypted_printer(start_printer, tmp_path):
    """A printer with a certificate for a host, which an authority issued; give its URI, and both certificates."""
    printer = start_printer("ipp")
    authority = issue_certificate(tmp_path / "authority", "an-authority")
    with ExitStack() as stack:

        def start(host):
            issued = issue_certificate(tmp_path / host, host, authority)
            port, _ = stack.enter_context(tls_proxy(printer.port, tmp_path, issued))
            return f"ipps://localhost:{port}/ipp/print", authority[1], issued[1]

        yield start


def test_authority_is_trusted_for_the_printers_own_host(encrypted_printer):
    """With ca= an authority's certificate for the host of the URI is accepted, one for another host is refused."""
    right, authority, _ = encrypted_printer("localhost")
    wrong, _, _ = encrypted_printer("other-printer.example")

    print_and_wait(f"{right}?ca={authority}")
    with pytest.raises(PrinterUnavailableError, match=r"not trusted .*[Hh]ostname mismatch"):
        opened(f"{wrong}?ca={authority}").send(PDF, job_name="job-1", on_first_byte=ignore)
    with pytest.raises(PrinterUnavailableError, match="not trusted"):
        opened(right).send(PDF, job_name="job-1", on_first_byte=ignore)


def test_named_certificate_takes_the_place_of_the_host_name(encrypted_printer):
    """With certificate= exactly that certificate is accepted, for any host; no other one of the same authority."""
    right, authority, its_own = encrypted_printer("localhost")
    wrong, _, of_another = encrypted_printer("other-printer.example")

    print_and_wait(f"{wrong}?certificate={of_another}")
    for uri, certificate in ((right, of_another), (wrong, its_own), (right, authority), (wrong, authority)):
        with pytest.raises(PrinterUnavailableError, match="not trusted"):
            opened(f"{uri}?certificate={certificate}").send(PDF, job_name="job-1", on_first_byte=ignore)


def test_another_service_on_the_port_is_reported(start_printer):
    """A response of another service leaves the result unknown, and the error contains its status."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        driver = opened(f"ipp://127.0.0.1:{server.server_port}/ipp/print")
        try:
            with pytest.raises(PrinterInterruptedError, match="HTTP 501"):
                driver.send(PDF, job_name="job-1", on_first_byte=ignore)
            assert "HTTP 501" in driver.status().description
        finally:
            server.shutdown()
            thread.join()
