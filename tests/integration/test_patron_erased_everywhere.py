# SPDX-License-Identifier: Apache-2.0
"""A patron card without a card pattern and a patron's name take part in everything; after the erasure no copy has them."""

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from kombu import Connection
from sqlalchemy import inspect, select, text, update

from schemas.circulation_events import ItemLoaned, LoanDischarged, SlipSeen
from schemas.models import InboxEntry, Patron, PrintJob, UndoPatronLink
from schemas.print_jobs import PrintState
from schemas.request_status import RequestStatus
from schemas.topology import DEAD_LETTER_QUEUE, HOUSEKEEPING_QUEUE, PRINT_ACTIONS_QUEUE, RETURNS_QUEUE, reply_queue
from stations.client import StationClient
from tests.deploy_files import DEPLOY
from tests.polling import wait_until
from tests.processes import Deployment
from tests.raw_station import RawStation
from workers.cli import main
from workers.metrics.broker import lengths

NAME, NUMBER = "Zyphora Unmistakable-Canaria", "CANARY4711007"
TELLTALES = (NAME, "Zyphora", "Canaria", NUMBER, NUMBER.lower())
QUEUES = (RETURNS_QUEUE, HOUSEKEEPING_QUEUE, PRINT_ACTIONS_QUEUE, DEAD_LETTER_QUEUE, "printing.main",
          reply_queue("main-desk-1"), reply_queue("main-desk-2"))  # fmt: skip

pytestmark = [pytest.mark.long, pytest.mark.timeout(600), pytest.mark.brokers("redis", "rabbitmq")]


@pytest.fixture
def broker(broker_kind, request) -> Iterator[tuple[str, Callable[[], Iterator[bytes]]]]:
    """URL of a broker, and a function that returns its files after a rewrite: those of RabbitMQ cannot be read."""
    if broker_kind == "rabbitmq":
        yield request.getfixturevalue("rabbitmq").url, lambda: iter(())
        return
    server = request.getfixturevalue("start_valkey")("--appendonly", "yes")

    def files() -> Iterator[bytes]:
        for path in server.socket.parent.rglob("*"):
            if path.is_file():
                yield path.read_bytes()

    def after_a_rewrite() -> Iterator[bytes]:
        assert found_in(files()), "the append-only file contains the acknowledged messages until it is rewritten"
        server.client.bgrewriteaof()
        wait_until(
            lambda: not {server.client.info("persistence")[key] for key in ("aof_rewrite_in_progress",
                                                                             "aof_rewrite_scheduled")} & {1},
            "the append-only file is rewritten",
        )  # fmt: skip
        # The server deletes the old file in a thread of its own.
        wait_until(lambda: not found_in(files()), "the old append-only file is deleted")
        return files()

    yield f"redis+socket://{server.socket}", after_a_rewrite


def found_in(contents):
    """The telltales that are in one of the contents: as text, or in base64, as kombu writes bodies on Redis."""
    forms = {telltale.encode(): telltale for telltale in TELLTALES}
    for telltale in TELLTALES:
        for offset in range(3):  # base64 of a text depends on its place in the message
            encoded = base64.b64encode(b"x" * offset + telltale.encode())
            forms[encoded[4 if offset else 0 : -4]] = telltale
    return {telltale for content in contents for form, telltale in forms.items() if form in content}


def name_the_patrons(library):
    """Give every patron the canary's name, and the last one the number of the card."""
    with library.engine.begin() as connection:
        connection.execute(update(Patron).values(name=NAME))
        last = connection.execute(select(Patron.id).order_by(Patron.id.desc()).limit(1)).scalar_one()
        connection.execute(update(Patron).where(Patron.id == last).values(number=NUMBER))


def contents_of(engine):
    """The rows of each table."""
    with engine.connect() as connection:
        return {
            name: repr(connection.execute(text(f"SELECT * FROM {name}")).all()).encode()
            for name in inspect(engine).get_table_names()
        }


def reply_to(client, event_id):
    """The reply to an event, which must come."""
    reply = client.wait(event_id, 60)
    assert reply is not None
    return reply


@pytest.mark.thorough
def test_erased_patron_is_in_no_table_copy_export_log_or_broker(
    broker, database_url, library, tmp_path, rows, monkeypatch
):
    """The card is scanned and typed in place of each barcode, noted and quarantined; then it expires and is erased."""
    broker_url, broker_files = broker
    deployment = Deployment(broker_url, database_url, tmp_path, {"BOOKDROP_LOG_LEVEL": "debug"})
    requests = [library.request(), library.request(RequestStatus.RECEIVED), library.request(damage_note=f"by {NAME}")]
    name_the_patrons(library)
    housekeeping = {
        "BOOKDROP_SWEEP_INTERVAL_SECONDS": "0.5",
        "BOOKDROP_PRIVACY_KEY": "a key of the tests, long enough.",
    }

    with (
        closing(RawStation(broker_url)) as raw_station,
        deployment.worker("returns"),
        deployment.worker("printing", "--branch", "main"),
        deployment.worker("housekeeping", **housekeeping),
        StationClient(deployment.station_settings("main-desk-2")) as client,
    ):
        raw_station.replies_to(raw_station.send(library.scan(requests[0][1][0])))
        raw_station.send(library.scan(NUMBER, key="a wrong key"))
        raw_station.send({**library.scan("1"), "barcode": [NUMBER], NAME: NUMBER})
        raw_station.send({**library.scan("2"), "station": NUMBER.lower()})
        replies = [
            reply_to(client, send())
            for send in (
                lambda: client.scan(NUMBER),
                lambda: client.request_return(NUMBER),
                lambda: client.send_event(LoanDischarged, barcode=client.read_barcode(NUMBER)),
                lambda: client.send_event(ItemLoaned, barcode=client.read_barcode(NUMBER)),
                lambda: client.request_return(requests[1][0], note=f"for {NAME}, {NUMBER}", print_slip=True),
                lambda: client.scan(requests[2][1][0]),
            )
        ]
        wait_until(lambda: slips_are_out(library), "the slips are out")
        with library.engine.connect() as connection:
            slip = connection.execute(select(PrintJob.id).limit(1)).scalar_one()
        replies.append(reply_to(client, client.send_event(SlipSeen, slip=slip, barcode=client.read_barcode(NUMBER))))
        before = contents_of(library.engine)
        with library.engine.begin() as connection:
            connection.execute(update(InboxEntry).values(answered_at=library.now - timedelta(days=2)))
            connection.execute(update(UndoPatronLink).values(purge_after=library.now - timedelta(minutes=1)))
            connection.execute(text("UPDATE retention SET position = 0"))
        wait_until(lambda: not found_in([contents_of(library.engine)["inbox"]]), "housekeeping erases the card")
        digests = [row.barcode_digest for row in rows(InboxEntry) if row.barcode_digest]
        monkeypatch.setenv("BOOKDROP_BROKER_URL", broker_url)
        monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
        done = CliRunner().invoke(main, ["patrons", "forget", "-", "--yes", "--json"], input=f"{NUMBER}\n")
        exports = [*exports_of(), deployment.bookdrop("metrics", "--once").stdout.encode()]
        raw_station.wait_until(lambda: not any(waiting(broker_url).values()), 60)  # it receives its notices meanwhile

    assert [reply.reason for reply in replies] == [
        "unknown_barcode", "unknown_request", "unknown_barcode", "unknown_barcode", "never_loaned", "loaned", "wrong_item",
    ]  # fmt: skip
    for name in ("patrons", "inbox", "request_events", "quarantine", "requests", "print_jobs"):
        assert found_in([before[name]]), name
    assert len(digests) == 5
    assert len(set(digests)) == 1
    assert done.exit_code == 0, done.output
    after = contents_of(library.engine)
    other_patrons = after.pop("patrons")
    assert NUMBER.encode() not in other_patrons.upper()
    assert found_in(after.values()) == set()
    assert found_in(exports) == set()
    assert found_in(path.read_bytes() for path in tmp_path.glob("*.log")) == set()
    assert NUMBER not in done.output
    remove_other_patrons(library)
    assert found_in([backup_of(database_url, tmp_path / "copies")]) == set()
    assert found_in(broker_files()) == set()


def slips_are_out(library):
    with library.engine.connect() as connection:
        states = connection.execute(select(PrintJob.state)).scalars().all()
    return len(states) == 3 and set(states) == {PrintState.DONE}


def waiting(broker_url):
    """The number of messages of each queue."""
    with Connection(broker_url) as connection:
        return lengths(connection, QUEUES)


def exports_of():
    """The output of each command that lists or shows stored data."""
    commands = ["requests list", "prints list", "quarantine list", "quarantine list --all", "printers list"]
    for command in (
        *(f"{each} --json" for each in commands),
        "requests show BR-00002 --json",
        "export returns",
    ):
        done = CliRunner().invoke(main, command.split())
        assert done.exit_code == 0, (command, done.output)
        assert done.stdout, command
        yield done.stdout.encode()


def remove_other_patrons(library):
    """The other patrons have the canary's name too, so that every link of theirs would show."""
    with library.engine.begin() as connection:
        connection.execute(text("UPDATE loans SET patron_id = NULL"))
        connection.execute(text("UPDATE requests SET patron_id = NULL"))
        connection.execute(text("DELETE FROM set_aside_links"))
        connection.execute(text("DELETE FROM patrons"))


def backup_of(database_url, folder: Path) -> bytes:
    """The content of a backup: the file of SQLite with its free pages, the SQL of PostgreSQL."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")}
    made = subprocess.run(
        [DEPLOY / "backup/back-up", folder], env={**clean, "BOOKDROP_DATABASE_URL": database_url}, capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    copy = Path(made.stdout.strip())
    assert copy.stat().st_mode & 0o777 == 0o600
    if copy.suffix == ".sqlite":
        content = copy.read_bytes()
    else:
        program = shutil.which("pg_restore")
        assert program is not None
        content = subprocess.run([program, "--file=-", copy], capture_output=True, timeout=60, check=True).stdout
    assert re.search(rb"The book number 1", content)  # the search finds text that is there
    return content
