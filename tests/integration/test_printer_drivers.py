# SPDX-License-Identifier: Apache-2.0
"""Every printer driver against a printer: what it promises, on good days and bad."""

from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pytest

from tasks.printing.claim import LEASE
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
from tasks.printing.printers.factory import open_printer
from tasks.printing.printers.timeouts import PrinterTimeouts
from tests.network import free_port
from tests.polling import wait_until
from tests.printers import PDF, FaultyConnection, LabelPrinter, cups_server, ipp_printer

SHORT = PrinterTimeouts(timedelta(seconds=2), timedelta(seconds=1), timedelta(seconds=0.5))
LONG = PrinterTimeouts()
LARGE = PDF + b"% more\n" * 200_000
"""More than the buffers between us and a printer hold, so that one that does not read is noticed."""

READY = b"\x02030,0,0,1245,000,0,0,0,000,0,0,0\x03\r\n\x02000,0,0,0,0,2,4,0,00000000,1,000\x03\r\n\x021234,0\x03\r\n"
NO_PAPER = READY.replace(b"030,0,0,", b"030,1,0,")
HEAD_UP_AND_PAUSED = READY.replace(b"030,0,0,", b"030,0,1,").replace(b"000,0,0,0,0,2", b"000,0,1,0,0,2")


@dataclass
class Spool:
    """The folder, asked like the other printers."""

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
def made(tmp_path, monkeypatch):
    """Make a printer of a kind; all are switched off at the end."""
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
        maker.line = lambda fault, printer: stack.enter_context(closing(FaultyConnection(fault, printer.port)))
        yield maker


def nothing():
    """Announce nothing."""


def tracking(driver: PrinterDriver) -> JobTrackingDriver:
    """The driver of a printer that knows its jobs."""
    assert is_job_tracking(driver)
    return driver


def through(line, printer):
    """The printer's URI, over a bad line."""
    return printer.uri.replace(f":{printer.port}", f":{line.port}")


@pytest.mark.parametrize("kind", ["spool", "ipp", "lp", "socket"])
def test_a_slip_arrives_whole_and_once(made, kind):
    """What was sent is what the printer has, to the byte; the first byte is announced before there is anything."""
    printer = made(kind)
    seen = []

    name = open_printer(printer.uri).send(
        LARGE, job_name="job-1", on_first_byte=lambda: seen.append(printer.documents())
    )

    wait_until(lambda: printer.documents() == [LARGE], "the slip is there")
    assert seen == [[]]
    assert name


@pytest.mark.parametrize("kind", ["spool", "ipp", "lp", "socket"])
def test_a_slip_that_may_not_leave_leaves_nothing(made, kind):
    """Stopped at the first byte, because another worker has the job: no slip, and the next one goes through."""
    printer = made(kind)
    driver = open_printer(printer.uri)

    def stop():
        raise LookupError

    with pytest.raises(LookupError):
        driver.send(b"%PDF stopped", job_name="job-1", on_first_byte=stop)

    driver.send(PDF, job_name="job-2", on_first_byte=nothing)
    wait_until(printer.documents, "the second slip is there")
    assert printer.documents() == [PDF]


@pytest.mark.parametrize("kind", ["spool", "ipp", "lp", "socket"])
def test_a_printer_says_that_it_is_ready(made, kind):
    """Asked, a printer that is well says so, and takes no slip for it."""
    printer = made(kind)

    status = open_printer(printer.uri, SHORT).status()

    assert status.ready
    assert not status.reasons
    assert printer.documents() == []


@pytest.mark.parametrize("uri", ["ipp://localhost:{}/ipp/print", "socket://localhost:{}"])
def test_a_printer_that_is_off_leaves_the_slip_safe(uri):
    """Refused connections: no first byte was announced, the slip may be sent again, and the words say why."""
    driver = open_printer(uri.format(free_port()), SHORT)
    announced = []

    with pytest.raises(PrinterUnavailableError, match="refuses connections"):
        driver.send(PDF, job_name="job-1", on_first_byte=lambda: announced.append(1))

    assert announced == []
    assert not driver.status().ready
    assert "refuses connections" in driver.status().description


@pytest.mark.parametrize("uri", ["ipp://no-such-printer.invalid/ipp/print", "socket://no-such-printer.invalid"])
def test_a_name_nobody_knows_is_told(uri):
    """A misspelt host is a printer that is away."""
    with pytest.raises(PrinterUnavailableError, match=r"no-such-printer\.invalid"):
        open_printer(uri, SHORT).send(PDF, job_name="job-1", on_first_byte=nothing)


@pytest.mark.parametrize("kind", ["ipp", "socket"])
@pytest.mark.parametrize(("fault", "words"), [("hang", "in time"), ("reset", "closed the connection")])
@pytest.mark.parametrize("document", [PDF * 45, LARGE], ids=["small enough for our buffers", "large"])
def test_a_printer_that_fails_mid_job_leaves_the_slip_in_doubt(made, kind, fault, words, document):
    """Accepted and never read, or cut off in the middle: a byte may have left, so nobody may send it again."""
    printer = made(kind)
    driver = open_printer(through(made.line(fault, printer), printer), SHORT)
    announced = []

    with pytest.raises(PrinterInterruptedError, match=words):
        driver.send(document, job_name="job-1", on_first_byte=lambda: announced.append(1))

    assert announced == [1]
    assert printer.documents() == []


def test_a_label_printer_that_fails_with_all_of_the_label_is_in_doubt(made):
    """All was taken, and then the connection is reset: the printer went off before it had read to the end."""
    printer = made("socket")
    driver = open_printer(through(made.line("late reset", printer), printer), LONG)

    with pytest.raises(PrinterInterruptedError, match="closed the connection"):
        driver.send(
            b"^XA" + b"^FX small enough for the printer's buffers" * 60, job_name="job-1", on_first_byte=nothing
        )


def test_a_refusal_before_the_end_is_read(made):
    """A printer that refuses a slip by its size and hangs up does not read it first: its refusal counts all the same."""
    printer = made("ipp")
    driver = open_printer(through(made.line("too large", printer), printer), LONG)

    with pytest.raises(PrinterUnavailableError, match="does not accept a document of this size"):
        driver.send(LARGE * 6, job_name="job-1", on_first_byte=nothing)


@pytest.mark.parametrize("kind", ["ipp", "socket"])
def test_a_slow_printer_is_waited_for(made, kind):
    """A printer that reads a little at a time gets its slip all the same."""
    printer = made(kind)
    driver = open_printer(through(made.line("slow", printer), printer), LONG)

    driver.send(PDF * 1000, job_name="job-1", on_first_byte=nothing)

    wait_until(lambda: printer.documents() == [PDF * 1000], "the slip is there")


def test_a_worker_outlasts_its_printers_patience():
    """All waiting for a printer together is shorter than a worker's lease, or another would take the slip meanwhile."""
    assert 2 * LONG.connect + 2 * LONG.transfer + LONG.status < LEASE


def test_a_lost_answer_is_found_by_the_jobs_name(made):
    """The printer took the slip and its answer got lost: asked by name, it gives the job, and what became of it."""
    printer = made("ipp")
    driver = open_printer(through(made.line("lose response", printer), printer), SHORT)

    with pytest.raises(PrinterInterruptedError):
        driver.send(PDF, job_name="job-17", on_first_byte=nothing)

    asked = tracking(open_printer(printer.uri))
    found = asked.find_job("job-17")
    assert found is not None
    assert asked.find_job("job-1") is None
    wait_until(lambda: asked.job_fate(found, job_name="job-17") == Completed(), "the job is done")
    assert printer.documents() == [PDF]


def test_out_of_paper_is_told_and_the_slip_comes_when_there_is_some(made):
    """Without paper a slip is taken and waits, and the printer says for what; refilled, it is printed."""
    printer = made("ipp")
    driver = tracking(open_printer(printer.uri))
    printer.paper_out()

    assert driver.status().description == "no paper"
    spool_id = driver.send(PDF, job_name="job-1", on_first_byte=nothing)
    fate = driver.job_fate(spool_id)
    assert isinstance(fate, Waiting)
    assert "media-empty" in fate.reasons

    printer.refill()

    wait_until(lambda: driver.job_fate(spool_id) == Completed(), "the job is done")
    assert driver.status().description == "ready"


def test_a_busy_printer_refuses_and_the_slip_is_safe(made):
    """A printer that says it did not take the slip is believed, in its own words; the slip may be sent again."""
    printer = made("ipp")
    driver = open_printer(printer.uri)
    printer.paper_out()
    driver.send(PDF, job_name="job-1", on_first_byte=nothing)

    with pytest.raises(PrinterUnavailableError, match="busy with another job: Currently printing another job"):
        driver.send(PDF, job_name="job-2", on_first_byte=nothing)


def test_a_printer_that_takes_no_pdf_refuses(made):
    """A format it does not know is refused, in words; nothing comes out."""
    printer = made("ipp", document_format="image/urf")

    with pytest.raises(
        PrinterUnavailableError, match="does not accept slips as they are sent: Unsupported document-format"
    ):
        open_printer(printer.uri).send(PDF, job_name="job-1", on_first_byte=nothing)


def test_a_path_without_a_printer_is_told(made):
    """A printer whose path is another one: the slip is safe, and the words name the URI."""
    printer = made("ipp")

    with pytest.raises(PrinterUnavailableError, match=r"ipp/wrong"):
        open_printer(printer.uri.replace("print", "wrong")).send(PDF, job_name="job-1", on_first_byte=nothing)


def test_a_printer_whose_plug_was_pulled_forgets(made):
    """Killed mid-job it cannot be asked; switched on again it knows the job no more, and its numbers start over."""
    printer = made("ipp")
    driver = tracking(open_printer(printer.uri, SHORT))
    printer.paper_out()
    spool_id = driver.send(PDF, job_name="job-1", on_first_byte=nothing)

    printer.stop()
    with pytest.raises(PrinterUnavailableError):
        driver.job_fate(spool_id)
    printer.start()

    assert isinstance(driver.job_fate(spool_id), UnknownJob)
    assert driver.find_job("job-1") is None
    assert driver.send(PDF, job_name="job-2", on_first_byte=nothing) == spool_id
    assert isinstance(driver.job_fate(spool_id, job_name="job-1"), UnknownJob)


def test_a_queue_tells_what_became_of_its_jobs(made):
    """A job of a CUPS queue is followed to its end, and found by its name before and after."""
    queue = made("lp")
    driver = tracking(open_printer(queue.uri))
    queue.printer.paper_out()

    spool_id = driver.send(PDF, job_name="job-17", on_first_byte=nothing)
    assert driver.find_job("job-17") == spool_id
    queue.printer.refill()

    wait_until(lambda: driver.job_fate(spool_id, job_name="job-17") == Completed(), "the job is done")
    assert driver.find_job("job-17") == spool_id
    assert driver.find_job("job-1") is None
    assert queue.documents() == [PDF]


def test_a_paused_queue_takes_slips_and_says_so(made):
    """A slip for a paused queue waits there, told as paused, and is still known when the server starts again."""
    queue = made("lp", paused=True)
    driver = tracking(open_printer(queue.uri))

    status = driver.status()
    spool_id = driver.send(PDF, job_name="job-1", on_first_byte=nothing)

    assert (status.ready, status.description) == (False, "paused")
    assert driver.job_fate(spool_id) == Waiting(("paused",))
    queue.server.stop()
    queue.server.start()
    wait_until(lambda: driver.job_fate(spool_id, job_name="job-1") == Completed(), "the job is done")
    assert queue.documents() == [PDF]


def test_a_queue_that_accepts_no_jobs_refuses(made):
    """A queue that is closed refuses, and the slip is safe."""
    queue = made("lp", accepting=False)
    driver = open_printer(queue.uri)

    assert not driver.status().ready
    with pytest.raises(PrinterUnavailableError, match="accepts no jobs"):
        driver.send(PDF, job_name="job-1", on_first_byte=nothing)


@pytest.mark.parametrize("state", ["no queue of that name", "no server"])
def test_a_queue_that_is_not_there_is_told(made, state):
    """A misspelt queue and a server that is off leave the slip safe, in words."""
    queue = made("lp")
    driver = open_printer("lp://slipz")
    if state == "no server":
        queue.server.stop()

    with pytest.raises(PrinterUnavailableError, match="has no such queue" if "queue" in state else "not there"):
        driver.send(PDF, job_name="job-1", on_first_byte=nothing)


def test_a_job_the_printer_gave_up_is_lost(made):
    """A job that fails in the printer is told as given up, never as done."""
    printer = made("ipp", command="/bin/false")
    driver = tracking(open_printer(printer.uri))

    spool_id = driver.send(PDF, job_name="job-1", on_first_byte=nothing)

    wait_until(lambda: driver.job_fate(spool_id) == Lost("the printer gave it up"), "the job is given up")


@pytest.mark.parametrize(
    ("status", "ready", "words"),
    [
        (READY, True, "ready"),
        (NO_PAPER, False, "no paper"),
        (HEAD_UP_AND_PAUSED, False, "paused; a cover is open"),
        (b"\x02030,0\x03", True, "does not report its status"),
        (b"HTTP/1.0 400 Bad Request\r\n\r\n", True, "does not report its status"),
        (b"", True, "does not report its status"),
    ],
)
def test_a_label_printer_says_what_it_lacks(made, status, ready, words):
    """Asked with ~HS a label printer tells paper, pause and head; one that says nothing is presumed ready."""
    printer = made("socket", status=status)

    reported = open_printer(printer.uri, SHORT).status()

    assert (reported.ready, reported.description) == (ready, words)
    assert printer.documents() == []


def test_an_encrypted_printer_must_be_known(made):
    """A printer that signed its own certificate is refused until it is told which one, or that any will do."""
    printer = made("ipp")
    uri = printer.uri.replace("ipp://", "ipps://")
    open_printer(f"{uri}?certificate=any").status()  # it makes its certificate when it is first asked
    [its_own] = printer.folder.glob("*.crt")

    with pytest.raises(PrinterUnavailableError, match="certificate that is not trusted"):
        open_printer(uri).send(PDF, job_name="job-1", on_first_byte=nothing)
    for trusted in ("any", its_own):
        assert open_printer(f"{uri}?certificate={trusted}").send(PDF, job_name="job-2", on_first_byte=nothing)
        wait_until(lambda: open_printer(printer.uri).status().description == "ready", "it is ready for the next one")


def test_another_service_on_the_port_is_told(made):
    """What answers and is no printer: nobody knows what became of the slip, and the words say why."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        driver = open_printer(f"ipp://127.0.0.1:{server.server_port}/ipp/print", SHORT)
        try:
            with pytest.raises(PrinterInterruptedError, match="HTTP 501"):
                driver.send(PDF, job_name="job-1", on_first_byte=nothing)
            assert "HTTP 501" in driver.status().description
        finally:
            server.shutdown()
            thread.join()
