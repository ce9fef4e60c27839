# SPDX-License-Identifier: Apache-2.0
"""`bookdrop up` and its commands as a user runs them: real processes, and no process left behind."""

import json
import os
import pty
import re
import select as io_select
import signal
import socket
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from schemas.database import open_engine
from schemas.migration import migrate
from tasks.data_import.demo import load_demo
from tests.flower import FlowerClient, list_tasks
from tests.polling import wait_until
from tests.processes import clean_environment
from workers.embedded.data_dir import DataDirectory
from workers.embedded.service import STATIONS

pytestmark = pytest.mark.long

BOOKDROP = (sys.executable, "-m", "workers.cli")
STATION = (sys.executable, "-m", "stations.cli")


def environment(home: Path) -> dict[str, str]:
    return clean_environment(BOOKDROP_HOME=str(home), BOOKDROP_CONFIG=str(home / "bookdrop.toml"), NO_COLOR="1")


def bookdrop(home: Path, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Run a command of `bookdrop` to its end."""
    env = environment(home)
    if not (home / "bookdrop.toml").exists():
        del env["BOOKDROP_CONFIG"]
    return subprocess.run(
        [*BOOKDROP, *arguments], env=env, capture_output=True, text=True, timeout=300, check=False,
        **{"stdin": subprocess.DEVNULL, **options},
    )  # fmt: skip


def station(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `bookdrop-station` to its end."""
    return subprocess.run(
        [*STATION, *arguments], env=environment(home), capture_output=True, text=True, timeout=300, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def processes_of(home: Path) -> str:
    """The processes whose command line contains the folder."""
    listed = subprocess.run(["ps", "-eo", "pid=,stat=,command="], capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in listed.splitlines() if str(home) in line and " Z" not in line)


def query(home: Path, sql: str):
    engine = create_engine(f"sqlite:///{home / 'bookdrop.db'}")
    try:
        with engine.connect() as connection:
            return connection.execute(text(sql)).all()
    finally:
        engine.dispose()


@pytest.fixture
def home(tmp_path):
    """A data directory whose processes are stopped at the end."""
    path = tmp_path / "home"
    yield path
    if processes_of(path):
        bookdrop(path, "down")


def filled(home):
    """The data directory with the demo data, as after a first start."""
    place = DataDirectory(home)
    place.prepare()
    engine = open_engine(place.database_url)
    migrate(engine)
    with Session(engine) as session, session.begin():
        load_demo(
            session,
            seed=1,
            now=datetime.now(UTC),
            spool_dir=place.spool,
            station_keys=place.station_keys(list(STATIONS)),
        )
    engine.dispose()
    return home


@pytest.fixture
def up(home):
    """`bookdrop up --stay` as a process."""
    process = subprocess.Popen(
        [*BOOKDROP, "up", "--stay"],
        env={k: v for k, v in environment(home).items() if k != "BOOKDROP_CONFIG"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: DataDirectory(home).load_state().flower)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(90)
        assert process.stdout is not None
        process.stdout.close()


def test_up_without_input_plays_the_demo(home):
    """Without standard input the demo runs: outcomes with their texts, printed slips, code 0, no process left."""
    done = bookdrop(home, "up")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "The item's destination is" in done.stdout
    for outcome in ("RETURNED", "ALREADY RETURNED", "REFUSED"):
        assert outcome in done.stdout
    assert re.search(r"Flower: http://127\.0\.0\.1:\d+", done.stderr)
    slips = list((home / "slips").rglob("*.pdf"))
    wanted = query(home, "SELECT count(*) FROM print_jobs")[0][0]
    assert len(slips) == wanted > 0
    assert processes_of(home) == ""


def test_flower_gets_another_port_when_its_own_is_taken(home):
    """The start names the taken port and how to choose one; the setting and the option choose it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        by_option = bookdrop(home, "up", "--flower-port", str(taken))
        env = {**environment(home), "BOOKDROP_FLOWER_PORT": str(taken)}
        by_setting = subprocess.run(
            [*BOOKDROP, "up", "--no-demo"], env=env, capture_output=True, text=True, timeout=300, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    free = bookdrop(home, "up", "--flower-port", str(taken))

    for done in (by_option, by_setting):
        assert f"Another program has port {taken}" in done.stderr, done.stderr
        assert f"Flower: http://127.0.0.1:{taken} " not in done.stderr
    assert f"Flower: http://127.0.0.1:{taken} " in free.stderr
    assert "Another program" not in free.stderr


@pytest.mark.thorough
def test_up_scans_barcodes_from_a_pipe(home):
    """Barcodes on standard input are scanned, one a line; existing data is not changed."""
    [(barcode,)] = query(
        filled(home),
        "SELECT b.barcode FROM item_barcodes b JOIN items i ON i.id = b.item_id JOIN requests r ON r.id = i.request_id"
        " WHERE r.status = 'loaned' AND i.returned_at IS NULL"
        " AND (SELECT count(*) FROM items o WHERE o.request_id = r.id) = 1"
        " AND (SELECT count(*) FROM item_barcodes o WHERE o.barcode = b.barcode) = 1"
        " AND NOT EXISTS (SELECT 1 FROM loans l WHERE l.item_id = i.id AND l.claimed_returned) LIMIT 1",
    )

    done = bookdrop(home, "up", "--no-flower", stdin=None, input=f"{barcode}\r\n{barcode}-unknown\n")

    assert "The item's destination is" in done.stdout
    assert "Unknown barcode" in done.stdout
    assert query(home, f"SELECT count(*) FROM inbox WHERE reply LIKE '%\"{barcode}\"%'") == [(1,)]


@pytest.mark.thorough
def test_station_and_flower_beside_a_running_up(home, up):
    """A station's commands get replies, a second start is rejected, and Flower lists the scan.

    Flower requires the login that `up` printed. Its owner can act there, and only its owner can read the password.
    """
    status = json.loads(bookdrop(home, "status", "--json").stdout)
    external_id, other_id = (
        row[0] for row in query(home, "SELECT external_id FROM requests WHERE status = 'received' LIMIT 2")
    )

    returned = station(home, "return", external_id)
    second = bookdrop(home, "up")
    doctor = bookdrop(home, "doctor")

    assert returned.returncode == 0, returned.stdout + returned.stderr
    assert f"Request {external_id} is returned. The item's destination is" in returned.stdout
    assert query(home, f"SELECT status FROM requests WHERE external_id = '{external_id}'") == [("returned_to_partner",)]
    assert query(home, "SELECT count(*) FROM print_jobs p JOIN requests r ON r.id = p.request_id"
                       f" WHERE r.external_id = '{external_id}'") == [(0,)]  # fmt: skip
    assert second.returncode == 3
    assert f"process {up.pid}" in second.stderr
    assert doctor.returncode == 0, doctor.stdout

    flower = status["flower"]
    [login] = json.loads((home / "flowerconfig.py").read_text().partition(" = ")[2])
    name = login.partition(":")[0]
    owner = FlowerClient(flower, login)

    def workers():
        names = [worker["hostname"].split("@")[0] for worker in json.loads(owner.get("/workers", json="1")[1])["data"]]
        return sorted(names) == ["housekeeping", "printing", "returns"]

    wait_until(workers)
    scanned = station(home, "scan", "--json", "NO-SUCH-BARCODE")
    tasks = wait_until(
        lambda: [
            t
            for t in json.loads(list_tasks(flower, login))["data"]
            if json.loads(scanned.stdout)["event_id"] in t["uuid"]
        ]
    )
    assert [(task["name"], task["state"]) for task in tasks] == [("returns.process_scan", "SUCCESS")]
    assert FlowerClient(flower).get("/prints")[0] == 401
    assert FlowerClient(flower, f"{name}:guessed").get("/prints")[0] == 401
    assert f'id="user">{name}<' in owner.get("/prints")[1]
    station(home, "return", other_id, "--print-slip")
    [(slip,)] = wait_until(lambda: query(home, "SELECT id FROM print_jobs WHERE state = 'done'"))
    assert owner.post(f"/prints/{UUID(slip)}", do="reprint", reason="lost") == (302, "/prints")
    [(history,)] = query(home, "SELECT details FROM request_events WHERE kind = 'slip_reprinted'")
    assert json.loads(history)["actor"] == name
    assert (home / "flowerconfig.py").stat().st_mode & 0o077 == 0
    assert login.partition(":")[2] not in processes_of(home)
    everything = json.dumps(json.loads(list_tasks(flower, login))["data"]) + owner.get("/returns")[1]
    assert "Test Patron" not in everything
    assert "NO-SUCH-BARCODE" not in everything


NO_WORKER_STARTS = """
import sys

if "worker" in sys.orig_argv:
    raise SystemExit("Error: this worker cannot start")
"""
"""A module that Python imports at the start of each process."""


def test_worker_that_cannot_start_ends_up_with_its_error(home, tmp_path):
    """`up` shows the worker's error, exits 1 soon and leaves no process."""
    (tmp_path / "sitecustomize.py").write_text(NO_WORKER_STARTS)
    env = {name: value for name, value in environment(home).items() if name != "BOOKDROP_CONFIG"}

    done = subprocess.run(
        [*BOOKDROP, "up"], env={**env, "PYTHONPATH": str(tmp_path)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert done.returncode == 1, done.stdout + done.stderr
    assert "ended 3 times in a row right after its start" in done.stderr
    assert "Error: this worker cannot start" in done.stderr
    assert "pending" not in done.stdout.lower()
    assert processes_of(home) == ""


def test_unknown_setting_is_refused_before_a_process_starts(home):
    """`up` names the setting and exits 2."""
    env = {name: value for name, value in environment(home).items() if name != "BOOKDROP_CONFIG"}

    done = subprocess.run(
        [*BOOKDROP, "up"], env={**env, "BOOKDROP_UNDO_MINUTES": "10"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert done.returncode == 2, done.stdout + done.stderr
    assert "environment variable BOOKDROP_UNDO_MINUTES" in done.stderr
    assert processes_of(home) == ""


def test_interrupt_ends_all_processes(home, up):
    """Ctrl-C ends with code 0 and leaves no process."""
    up.send_signal(signal.SIGINT)

    assert up.wait(90) == 0
    assert processes_of(home) == ""
    assert bookdrop(home, "status").returncode == 1


@pytest.mark.thorough
def test_next_start_ends_processes_of_a_killed_parent(home, up):
    """After kill -9 of the parent its processes remain; the next start ends them and continues."""
    os.kill(up.pid, signal.SIGKILL)
    up.wait()
    children = json.loads((home / "state.json").read_text())["children"]
    left = [pid for pid, _ in children.values()]
    assert all(Path(f"/proc/{pid}").exists() or sys.platform != "linux" for pid in left)

    done = bookdrop(home, "up", "--no-flower")

    assert done.returncode == 0, done.stdout + done.stderr
    for pid in left:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_down_stops_a_running_up(home, up):
    """`bookdrop down` stops it from another terminal; a second one reports that it is not running."""
    first = bookdrop(home, "down")
    second = bookdrop(home, "down")

    assert up.wait(90) == 0
    assert "Stopped" in first.stdout
    assert "not running" in second.stdout


def test_terminal_gets_the_prompt(home):
    """On a terminal `up` opens the prompt: a scan gets its reply, and Ctrl-D ends everything."""
    [(barcode,)] = query(
        filled(home),
        "SELECT b.barcode FROM item_barcodes b JOIN items i ON i.id = b.item_id WHERE i.request_id IS NULL LIMIT 1",
    )
    parent, child = pty.openpty()
    env = {k: v for k, v in environment(home).items() if k != "BOOKDROP_CONFIG"}
    process = subprocess.Popen([*BOOKDROP, "up", "--no-flower"], env=env, stdin=child, stdout=child, stderr=child)
    os.close(child)
    shown = b""

    def read():
        nonlocal shown
        while io_select.select([parent], [], [], 0)[0]:
            try:
                shown += os.read(parent, 4096)
            except OSError:  # the other end is closed
                return shown
        return shown

    def see(text: bytes):
        wait_until(lambda: text in read(), lambda: f"{text!r} in {shown!r}")

    try:
        see(b"bookdrop is up")
        see(b"> ")
        os.write(parent, f"{barcode}\r".encode())
        see(b"use the normal check-in")
        os.write(parent, b"\x04")
        wait_until(lambda: read() and process.poll() is not None, "the process ends")
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.kill()
        os.close(parent)
    assert processes_of(home) == ""


@pytest.mark.thorough
def test_down_ends_an_open_prompt(home):
    """`bookdrop down` in another terminal ends a station's prompt, restores the terminal, and exits 0."""
    filled(home)
    parent, child = pty.openpty()
    env = {k: v for k, v in environment(home).items() if k != "BOOKDROP_CONFIG"}
    process = subprocess.Popen([*BOOKDROP, "up", "--no-flower"], env=env, stdin=child, stdout=child, stderr=child)
    os.close(child)
    shown = bytearray()

    def read() -> None:
        with suppress(OSError):  # the other end of the terminal is closed
            while chunk := os.read(parent, 4096):
                shown.extend(chunk)

    reading = threading.Thread(target=read)
    reading.start()
    try:
        wait_until(lambda: b"> " in shown)
        mode = termios.tcgetattr(parent)[3]

        assert "Stopped" in bookdrop(home, "down").stdout

        assert process.wait(90) == 0
        assert not mode & termios.ICANON
        assert termios.tcgetattr(parent)[3] & termios.ICANON
    finally:
        if process.poll() is None:
            process.kill()
        reading.join(10)
        os.close(parent)
    assert processes_of(home) == ""
