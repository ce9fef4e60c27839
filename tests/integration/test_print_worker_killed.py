# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of a print worker at each step of a slip: none is lost, and none is printed twice automatically."""

import socket
import time
from contextlib import closing, contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from schemas.models import Printer, PrintJob
from schemas.print_jobs import PrintState as State
from tests.polling import wait_until
from tests.printers import FaultyConnection, LabelPrinter, ipp_printer
from tests.processes import kill_group

pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.databases("sqlite")]


@pytest.fixture
def return_with_slip(library, deployment, raw_station):
    """Have a worker process a Return with a slip, for the printer at `uri`."""

    def run(uri):
        set_printer_uri(library.engine, uri)
        _, [barcode] = library.request()
        with deployment.worker("returns"):
            [reply] = raw_station.replies_to(raw_station.send(library.scan(barcode)))
        assert reply["outcome"] == "returned"

    return run


def set_printer_uri(engine, uri):
    """Set the URI of all printers, and reset their backoff."""
    with engine.begin() as connection:
        connection.execute(update(Printer).values(uri=uri, failures=0, retry_at=None))


def print_job(engine):
    """The only print job."""
    with engine.connect() as connection:
        return connection.execute(select(PrintJob)).one()


def states(engine):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob.state)).scalars().all()


def kill_worker_at(state, library, deployment):
    """Start a print worker, and kill it and its pool when the job is in `state`."""
    process = deployment.start_worker("printing", "--branch", "main")
    wait_until(lambda: print_job(library.engine).state is state, f"never {state}")
    kill_group(process)
    assert print_job(library.engine).state is state


def end_lease(library):
    """End the lease, as after a minute and a half."""
    with library.engine.begin() as connection:
        over = library.now - timedelta(seconds=1)
        connection.execute(update(PrintJob).values(lease_until=over, next_attempt_at=None))


@contextmanager
def next_workers(deployment):
    """Another print worker, and the sweep."""
    with deployment.worker("printing", "--branch", "main"), deployment.worker("housekeeping"):
        yield


@contextmanager
def silent_port():
    """A port that neither accepts nor refuses a connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        callers = []
        for _ in range(4):  # its backlog is full
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
            callers.append(caller)
        yield listener.getsockname()[1]
        for caller in callers:
            caller.close()


class SlowPrinter(LabelPrinter):
    """A label printer that waits 17 s before it reads."""

    def serve(self, client):
        """Wait, then read."""
        time.sleep(17)
        super().serve(client)


def test_slow_printer_does_not_end_its_worker(library, deployment, return_with_slip):
    """Two slips of 17 s each, with a scan time limit of 15 s and redelivery after 30 s: each is printed once."""
    with closing(SlowPrinter()) as printer:
        return_with_slip(printer.uri)
        return_with_slip(printer.uri)
        with deployment.worker("printing", "--branch", "main", BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS="30"):
            wait_until(lambda: states(library.engine) == [State.DONE] * 2, "not printed")
            time.sleep(3)

        assert len(printer.documents()) == 2


def test_worker_killed_before_the_first_byte(library, deployment, return_with_slip):
    """The job was claimed and its printer not reached: the next worker prints it, once."""
    with silent_port() as port:
        return_with_slip(f"socket://127.0.0.1:{port}")
        kill_worker_at(State.CLAIMED, library, deployment)
    with closing(LabelPrinter()) as printer:
        set_printer_uri(library.engine, printer.uri)
        end_lease(library)
        with next_workers(deployment):
            wait_until(lambda: print_job(library.engine).state is State.DONE, "not printed")

        assert len(printer.documents()) == 1


def test_worker_killed_while_sending(library, deployment, return_with_slip):
    """A byte may have left: the result is unknown, and nothing is sent again."""
    with closing(FaultyConnection("hang", 0)) as connection:
        return_with_slip(f"socket://127.0.0.1:{connection.port}")
        kill_worker_at(State.SENDING, library, deployment)
    with closing(LabelPrinter()) as printer:
        set_printer_uri(library.engine, printer.uri)
        end_lease(library)
        with next_workers(deployment):
            wait_until(lambda: print_job(library.engine).state is State.UNKNOWN, "not in doubt")
            time.sleep(3)  # some sweeps

        assert (print_job(library.engine).state, printer.documents()) == (State.UNKNOWN, [])


def test_worker_killed_while_sending_to_a_tracking_printer(library, deployment, return_with_slip, tmp_path):
    """The printer is queried by the job's name: the result is known, and no second slip is printed."""
    with ipp_printer(tmp_path / "printer") as printer, closing(FaultyConnection("slow", printer.port)) as connection:
        return_with_slip(f"ipp://localhost:{connection.port}/ipp/print")
        kill_worker_at(State.SENDING, library, deployment)
        time.sleep(1)
        has_it = len(printer.documents())
        set_printer_uri(library.engine, printer.uri)
        end_lease(library)
        with next_workers(deployment):
            expected = State.DONE if has_it else State.UNKNOWN
            wait_until(lambda: print_job(library.engine).state is expected, f"not {expected}")
            time.sleep(2)

        assert len(printer.documents()) == has_it


def test_worker_killed_after_the_printer_accepted(library, deployment, return_with_slip, tmp_path):
    """Accepted by a printer without paper: the next worker queries it, and the slip is printed once after a refill."""
    with ipp_printer(tmp_path / "printer") as printer:
        printer.paper_out()
        return_with_slip(printer.uri)
        kill_worker_at(State.ACCEPTED, library, deployment)
        printer.refill()
        with next_workers(deployment):
            wait_until(lambda: print_job(library.engine).state is State.DONE, "not done")

        assert len(printer.documents()) == 1
