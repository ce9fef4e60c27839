# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a real print worker at each step of a slip: none is lost, none comes out twice unasked."""

import os
import signal
import socket
import time
from contextlib import closing, contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from schemas.database import open_engine
from schemas.models import Printer, PrintJob
from schemas.print_jobs import PrintState as State
from tests.library import Library
from tests.printers import BadLine, LabelPrinter, ipp_printer
from tests.wire import Wire, start_worker, worker

pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.timeout(180)]


@pytest.fixture
def library(sqlite_url, tmp_path):
    """A small library on SQLite."""
    engine = open_engine(sqlite_url)
    yield Library(engine, tmp_path / "spool").open()
    engine.dispose()


@pytest.fixture
def parts(broker_url, sqlite_url, tmp_path):
    """What a worker is started with."""
    return {"broker_url": broker_url, "database_url": sqlite_url, "folder": tmp_path}


@pytest.fixture
def wanted(library, parts, broker_url):
    """One Return by a real worker, which wants a slip on the printer at `uri`; gives nothing."""

    def make(uri):
        point(library.engine, uri)
        _, [barcode] = library.request()
        wire = Wire(broker_url)
        with worker("returns", **parts):
            [reply] = wire.answers(wire.send(library.scan(barcode)))
        wire.close()
        assert reply["outcome"] == "returned"

    return make


def point(engine, uri):
    with engine.begin() as connection:
        connection.execute(update(Printer).values(uri=uri, failures=0, retry_at=None))


def the_job(engine):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob)).one()


def states(engine):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob.state)).scalars().all()


def until(condition, what, patience=40.0):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def kill_at(state, library, parts):
    """Start a print worker, and kill it and its children when the slip is in `state`."""
    process = start_worker("printing", "--branch", "main", **parts)
    until(lambda: the_job(library.engine).state is state, f"never {state}")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert the_job(library.engine).state is state


def lease_ends(library):
    """A minute and a half later."""
    with library.engine.begin() as connection:
        over = library.now - timedelta(seconds=1)
        connection.execute(update(PrintJob).values(lease_until=over, next_attempt_at=None))


@contextmanager
def the_next_workers(parts):
    """Another print worker, and the sweep."""
    with worker("printing", "--branch", "main", **parts), worker("housekeeping", **parts):
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


class DawdlingPrinter(LabelPrinter):
    """A label printer that thinks for a long time before it reads."""

    def serve(self, client):
        """Think, then read."""
        time.sleep(17)
        super().serve(client)


def test_not_killed_while_its_printer_dawdles(library, parts, wanted):
    """Two slips of 17 s each, a time limit of 15 s for scans, and orders delivered again after 30 s: each once."""
    with closing(DawdlingPrinter()) as printer:
        wanted(printer.uri)
        wanted(printer.uri)
        with worker("printing", "--branch", "main", **parts, BOOKDROP_REDIS_VISIBILITY_TIMEOUT_SECONDS="30"):
            until(lambda: states(library.engine) == [State.DONE] * 2, "not printed", patience=60)
            time.sleep(3)

        assert len(printer.documents()) == 2


def test_killed_before_the_first_byte(library, parts, wanted):
    """The worker died with the slip claimed, its printer not yet reached: the next one prints it, once."""
    with silent_port() as port:
        wanted(f"socket://127.0.0.1:{port}")
        kill_at(State.CLAIMED, library, parts)
    with closing(LabelPrinter()) as printer:
        point(library.engine, printer.uri)
        lease_ends(library)
        with the_next_workers(parts):
            until(lambda: the_job(library.engine).state is State.DONE, "not printed")

        assert len(printer.documents()) == 1


def test_killed_while_sending(library, parts, wanted):
    """A byte may have left: nobody can know, nothing is sent again, and a person is told to look."""
    with closing(BadLine("hangs", 0)) as line:
        wanted(f"socket://127.0.0.1:{line.port}")
        kill_at(State.SENDING, library, parts)
    with closing(LabelPrinter()) as printer:
        point(library.engine, printer.uri)
        lease_ends(library)
        with the_next_workers(parts):
            until(lambda: the_job(library.engine).state is State.UNKNOWN, "not in doubt")
            time.sleep(3)  # some sweeps

        assert (the_job(library.engine).state, printer.documents()) == (State.UNKNOWN, [])


def test_killed_while_sending_to_a_printer_that_knows(library, parts, wanted, tmp_path):
    """The printer is asked by the slip's name, has it, and prints it: no doubt is left, and no second slip."""
    with ipp_printer(tmp_path / "printer") as printer, closing(BadLine("slow", printer.port)) as line:
        wanted(f"ipp://localhost:{line.port}/ipp/print")
        kill_at(State.SENDING, library, parts)
        time.sleep(1)
        has_it = len(printer.documents())
        point(library.engine, printer.uri)
        lease_ends(library)
        with the_next_workers(parts):
            wanted_state = State.DONE if has_it else State.UNKNOWN
            until(lambda: the_job(library.engine).state is wanted_state, f"not {wanted_state}")
            time.sleep(2)

        assert len(printer.documents()) == has_it


def test_killed_after_the_printer_took_it(library, parts, wanted, tmp_path):
    """Accepted, and out of paper: whoever comes next asks, and the slip comes out once when there is paper."""
    with ipp_printer(tmp_path / "printer") as printer:
        printer.paper_out()
        wanted(printer.uri)
        kill_at(State.ACCEPTED, library, parts)
        printer.refill()
        with the_next_workers(parts):
            until(lambda: the_job(library.engine).state is State.DONE, "not done")

        assert len(printer.documents()) == 1
