# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a real print worker at each step of a slip: none is lost, none comes out twice unasked."""

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

pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.databases("sqlite"), pytest.mark.timeout(180)]


@pytest.fixture
def return_with_slip(library, deployment, raw_station):
    """Have a worker process a Return with a slip, for the printer at `uri`."""

    def run(uri):
        point(library.engine, uri)
        _, [barcode] = library.request()
        with deployment.worker("returns"):
            [reply] = raw_station.replies_to(raw_station.send(library.scan(barcode)))
        assert reply["outcome"] == "returned"

    return run


def point(engine, uri):
    with engine.begin() as connection:
        connection.execute(update(Printer).values(uri=uri, failures=0, retry_at=None))


def print_job(engine):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob)).one()


def states(engine):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob.state)).scalars().all()


def kill_worker_at(state, library, deployment):
    """Start a print worker, and kill it and its children when the slip is in `state`."""
    process = deployment.start_worker("printing", "--branch", "main")
    wait_until(lambda: print_job(library.engine).state is state, f"never {state}")
    kill_group(process)
    assert print_job(library.engine).state is state


def lease_ends(library):
    """A minute and a half later."""
    with library.engine.begin() as connection:
        over = library.now - timedelta(seconds=1)
        connection.execute(update(PrintJob).values(lease_until=over, next_attempt_at=None))


@contextmanager
def the_next_workers(deployment):
    """Another print worker, and the sweep."""
    with deployment.worker("printing", "--branch", "main"), deployment.worker("housekeeping"):
        yield


@contextmanager
def silent_port():
    """A port on which nobody picks up: a connection is neither made nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        callers = []
        for _ in range(4):  # the line is full
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
            callers.append(caller)
        yield listener.getsockname()[1]
        for caller in callers:
            caller.close()


class SlowPrinter(LabelPrinter):
    """A label printer that thinks for a long time before it reads."""

    def serve(self, client):
        """Think, then read."""
        time.sleep(17)
        super().serve(client)


def test_not_killed_while_its_printer_dawdles(library, deployment, return_with_slip):
    """Two slips of 17 s each, a time limit of 15 s for scans, and orders delivered again after 30 s: each once."""
    with closing(SlowPrinter()) as printer:
        return_with_slip(printer.uri)
        return_with_slip(printer.uri)
        with deployment.worker("printing", "--branch", "main", BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS="30"):
            wait_until(lambda: states(library.engine) == [State.DONE] * 2, "not printed")
            time.sleep(3)

        assert len(printer.documents()) == 2


def test_killed_before_the_first_byte(library, deployment, return_with_slip):
    """The worker died with the slip claimed, its printer not yet reached: the next one prints it, once."""
    with silent_port() as port:
        return_with_slip(f"socket://127.0.0.1:{port}")
        kill_worker_at(State.CLAIMED, library, deployment)
    with closing(LabelPrinter()) as printer:
        point(library.engine, printer.uri)
        lease_ends(library)
        with the_next_workers(deployment):
            wait_until(lambda: print_job(library.engine).state is State.DONE, "not printed")

        assert len(printer.documents()) == 1


def test_killed_while_sending(library, deployment, return_with_slip):
    """A byte may have left: nobody can know, nothing is sent again, and a person is told to look."""
    with closing(FaultyConnection("hang", 0)) as connection:
        return_with_slip(f"socket://127.0.0.1:{connection.port}")
        kill_worker_at(State.SENDING, library, deployment)
    with closing(LabelPrinter()) as printer:
        point(library.engine, printer.uri)
        lease_ends(library)
        with the_next_workers(deployment):
            wait_until(lambda: print_job(library.engine).state is State.UNKNOWN, "not in doubt")
            time.sleep(3)  # some sweeps

        assert (print_job(library.engine).state, printer.documents()) == (State.UNKNOWN, [])


def test_killed_while_sending_to_a_printer_that_knows(library, deployment, return_with_slip, tmp_path):
    """The printer is asked by the slip's name, has it, and prints it: no doubt is left, and no second slip."""
    with ipp_printer(tmp_path / "printer") as printer, closing(FaultyConnection("slow", printer.port)) as connection:
        return_with_slip(f"ipp://localhost:{connection.port}/ipp/print")
        kill_worker_at(State.SENDING, library, deployment)
        time.sleep(1)
        has_it = len(printer.documents())
        point(library.engine, printer.uri)
        lease_ends(library)
        with the_next_workers(deployment):
            expected = State.DONE if has_it else State.UNKNOWN
            wait_until(lambda: print_job(library.engine).state is expected, f"not {expected}")
            time.sleep(2)

        assert len(printer.documents()) == has_it


def test_killed_after_the_printer_took_it(library, deployment, return_with_slip, tmp_path):
    """Accepted, and out of paper: whoever comes next asks, and the slip comes out once when there is paper."""
    with ipp_printer(tmp_path / "printer") as printer:
        printer.paper_out()
        return_with_slip(printer.uri)
        kill_worker_at(State.ACCEPTED, library, deployment)
        printer.refill()
        with the_next_workers(deployment):
            wait_until(lambda: print_job(library.engine).state is State.DONE, "not done")

        assert len(printer.documents()) == 1
