# SPDX-License-Identifier: Apache-2.0
"""`bookdrop quarantine`: lists, masked texts, an operator's decisions; and housekeeping that collects dead letters."""

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from sqlalchemy import insert, select

from schemas.models import Branch, QuarantinedMessage, Station, table
from schemas.topology import (
    DEAD_LETTER_QUEUE,
    HOUSEKEEPING_QUEUE,
    PRINT_ACTIONS_QUEUE,
    PROCESS_RETURN,
    PROCESS_SCAN,
    printing_queue,
)
from tasks.events.processing import process_in
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tasks.returns.queries import quarantined
from tests.library import KEY
from tests.raw_station import RawStation
from tests.task_context import POLICY
from workers.cli import main
from workers.commands.up import _waiting
from workers.doctor.backlog import in_database
from workers.metrics.database import Sample, read

quarantine = table(QuarantinedMessage)


@pytest.fixture
def run(library, database_url, monkeypatch, tmp_path, broker_url):
    """Run `bookdrop quarantine ...` with the library in the database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    monkeypatch.setenv("BOOKDROP_BROKER_URL", broker_url)
    return lambda *arguments: CliRunner().invoke(main, ["quarantine", *map(str, arguments)])


@pytest.fixture
def two_messages(library, context):
    """A scan of an unknown station, and a Return with a note and a wrong signature."""
    with context.unit_of_work() as uow:
        for payload, task in (
            (library.scan("31000000017", station="west-desk-1"), PROCESS_SCAN),
            (library.return_requested("BR-00001", note="for Canary Patron") | {"signature": "0" * 64}, PROCESS_RETURN),
        ):
            process_in(uow, [Received(payload, "reply.main-desk-1", task)], RETURN_HANDLER, POLICY)


def listed(result):
    assert result.exit_code == 0, result.output
    return [(each["id"], each["reason"]) for each in json.loads(result.stdout)["messages"]]


def test_list_filters_by_reason_and_station(run, two_messages):
    """All undecided messages, the oldest first; by reason, by station; as text and as JSON."""
    assert listed(run("list", "--json")) == [(1, "unknown_station"), (2, "bad_signature")]
    assert listed(run("list", "--json", "--why", "bad_signature")) == [(2, "bad_signature")]
    assert listed(run("list", "--json", "--station", "west-desk-1")) == [(1, "unknown_station")]
    assert "unknown_station" in run("list").stdout
    assert run("list", "--why", "malformed").stdout == "No message matches.\n"


def test_barcodes_and_notes_are_masked(run, two_messages):
    """A barcode and a note are shown with `--body` only; in lists never."""
    shown = run("show", 2).stdout + run("show", 2, "--json").stdout + run("list").stdout + run("list", "--json").stdout

    assert "Canary" not in shown
    assert "BR-00001" not in shown
    assert "(17 characters)" in shown
    assert "for Canary Patron" in run("show", 2, "--body").stdout
    assert "for Canary Patron" in json.loads(run("show", 2, "--body", "--json").stdout)["body"]


def test_unknown_number_is_reported(run):
    """An unknown number ends with code 1 and the command that lists messages."""
    result = run("show", 77)

    assert result.exit_code == 1
    assert "quarantine list" in result.stderr
    assert run("retry", 77).exit_code == 1


def test_retried_and_dropped_messages_leave_the_list(run, two_messages, valkey):
    """Retried messages are in their queue, dropped ones are recorded; both leave the list."""
    retried = run("retry", "--all", "--why", "unknown_station", "--actor", "Ann", "--json")
    dropped = run("drop", 2, "--reason", "a test program", "--actor", "Ann")
    again = run("drop", 2, "--reason", "a test program", "--json")

    assert [each["done"] for each in json.loads(retried.stdout)["messages"]] == [True]
    assert valkey.llen("returns") == 1
    assert dropped.exit_code == 0
    assert (again.exit_code, json.loads(again.stdout)["messages"][0]["done"]) == (1, False)
    assert listed(run("list", "--json")) == [(1, "unknown_station")]
    assert listed(run("list", "--json", "--all")) == [(1, "unknown_station"), (2, "bad_signature")]
    assert "Dropped" in run("show", 2).stdout
    shown = run("show", 2).stdout
    assert "by Ann (name typed, account " in shown
    assert "): a test program\n" in shown


def test_dropped_messages_are_counted_nowhere(run, two_messages, engine):
    """After a drop neither the metrics, `status`, the doctor nor the page in Flower counts the message."""

    def counted():
        samples = {
            (sample.name, sample.labels): sample.value
            for sample in read(engine, datetime.now(UTC))
            if isinstance(sample, Sample)
        }
        with engine.connect() as connection:
            [doctor] = [f for f in in_database(connection, datetime.now(UTC)) if f.part == "quarantine"]
            return (
                sum(value for (name, _), value in samples.items() if name == "bookdrop_quarantine_messages"),
                samples["bookdrop_quarantine_content_messages", ()],
                _waiting(engine.url.render_as_string(hide_password=False))["messages_in_quarantine"],
                int(doctor.message.split()[0]),
                quarantined(connection)["count"],
            )

    before = counted()
    for number in (1, 2):
        assert run("drop", number, "--reason", "a test program").exit_code == 0

    assert before == (2, 2, 2, 2, 2)
    assert counted() == (0, 0, 0, 0, 0)


def test_all_messages_are_counted_first(run, two_messages, valkey):
    """A dry run and another number than expected change nothing; the expected number is acted on."""
    counted = run("retry", "--all", "--dry-run")
    as_json = json.loads(run("drop", "--all", "--dry-run", "--reason", "x", "--json").stdout)
    other = run("drop", "--all", "--expect", 3, "--reason", "x")
    unchanged = listed(run("list", "--json"))
    dropped = run("drop", "--all", "--expect", 2, "--reason", "x")

    assert (counted.exit_code, counted.stdout) == (0, "2 messages match. Nothing was changed.\n")
    assert as_json == {"matching": 2, "ids": [1, 2]}
    assert (other.exit_code, "2 messages match, not 3. Nothing was changed." in other.stderr) == (1, True)
    assert (len(unchanged), valkey.llen("returns")) == (2, 0)
    assert dropped.exit_code == 0
    assert listed(run("list", "--json")) == []


@pytest.mark.parametrize(
    "arguments",
    [["retry"], ["retry", "1", "--all"], ["drop", "1"], ["retry", "1", "--why", "x"], ["retry", "1", "--dry-run"]],
)
def test_incomplete_options_end_with_code_2(run, arguments):
    """A command without a selection, or a drop without a reason, ends with code 2."""
    assert run(*arguments).exit_code == 2


def test_gather_collects_dead_letters(run, valkey):
    """Dead letters in the broker are listed at once, and only once."""
    valkey.lpush(DEAD_LETTER_QUEUE, b"\xff malformed")

    assert run("gather").stdout == "Dead letters gathered: 1.\n"
    assert json.loads(run("gather", "--json").stdout) == {"gathered": 0}
    assert listed(run("list", "--json")) == [(1, "malformed")]


@pytest.mark.long
@pytest.mark.thorough
@pytest.mark.databases("sqlite")
def test_retried_scan_of_a_new_station_gets_its_reply(deployment, library, broker_url, monkeypatch):
    """The station is added and the message retried: it is processed, its reply is sent, its row is settled."""
    engine = library.engine
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", deployment.database_url)
    monkeypatch.setenv("BOOKDROP_BROKER_URL", broker_url)
    _, [barcode] = library.request()
    raw_station = RawStation(broker_url, "west-desk-1")

    def states():
        with engine.connect() as connection:
            return list(connection.execute(select(quarantine.c.state)).scalars())

    with deployment.worker("returns"), deployment.worker("housekeeping"):
        event_id = raw_station.send(library.scan(barcode, station="west-desk-1"))
        raw_station.wait_until(lambda: states() == ["kept"])
        with engine.begin() as connection:
            branch = connection.execute(select(Branch.id).limit(1)).scalar_one()
            connection.execute(insert(Station).values(code="west-desk-1", branch_id=branch, key=KEY, active=True))
        result = CliRunner().invoke(main, ["quarantine", "retry", "1"])
        [reply] = raw_station.replies_to(event_id)
        raw_station.wait_until(lambda: states() == ["settled"])
    raw_station.close()

    assert result.exit_code == 0, result.output
    assert (reply["outcome"], len(raw_station.replies())) == ("returned", 1)


@pytest.mark.long
@pytest.mark.thorough
@pytest.mark.databases("sqlite")
def test_other_workers_survive_malformed_messages(deployment, library, valkey, raw_station):
    """Malformed messages in the queues of printing and housekeeping: slips are printed, and all messages are listed."""
    queues = (printing_queue("main"), PRINT_ACTIONS_QUEUE, HOUSEKEEPING_QUEUE)
    for queue in queues:
        valkey.lpush(queue, b"\x80 malformed")
    _, [barcode] = library.request()

    def listed():
        with library.engine.connect() as connection:
            return {
                row.queue: row.reason for row in connection.execute(select(quarantine.c.queue, quarantine.c.reason))
            }

    with deployment.worker("printing") as printing, deployment.worker("housekeeping") as housekeeping:
        with deployment.worker("returns"):
            raw_station.replies_to(raw_station.send(library.scan(barcode)))
            raw_station.wait_until(lambda: any(notice["state"] == "done" for notice in raw_station.notices()))
        raw_station.wait_until(lambda: len(listed()) == len(queues))
        assert (printing.poll(), housekeeping.poll()) == (None, None)

    assert listed() == dict.fromkeys(queues, "malformed")
    assert valkey.llen(DEAD_LETTER_QUEUE) == 0
