# SPDX-License-Identifier: Apache-2.0
"""`bookdrop quarantine`: what is shown, what is masked, what a person decides; and housekeeping that gathers by itself."""

import json

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
from tests.library import KEY
from tests.raw_station import RawStation
from tests.task_context import POLICY
from workers.cli import main

quarantine = table(QuarantinedMessage)


@pytest.fixture
def run(library, database_url, monkeypatch, tmp_path, broker_url):
    """Run `bookdrop quarantine ...`; the library of the tests is there already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    monkeypatch.setenv("BOOKDROP_BROKER_URL", broker_url)
    return lambda *arguments: CliRunner().invoke(main, ["quarantine", *map(str, arguments)])


@pytest.fixture
def two(library, context):
    """A scan of an unknown station, and a Return with a note and a wrong signature."""
    with context.unit_of_work() as uow:
        for payload, task in (
            (library.scan("31000000017", station="west-desk-1"), PROCESS_SCAN),
            (library.return_requested("BR-00001", note="for Canary Reader") | {"signature": "0" * 64}, PROCESS_RETURN),
        ):
            process_in(uow, [Received(payload, "reply.main-desk-1", task)], RETURN_HANDLER, POLICY)


def listed(result):
    assert result.exit_code == 0, result.output
    return [(each["id"], each["reason"]) for each in json.loads(result.stdout)["messages"]]


def test_list_and_filters(run, two):
    """Everything that waits, the oldest first; by reason, by station; in words and for scripts."""
    assert listed(run("list", "--json")) == [(1, "unknown_station"), (2, "bad_signature")]
    assert listed(run("list", "--json", "--why", "bad_signature")) == [(2, "bad_signature")]
    assert listed(run("list", "--json", "--station", "west-desk-1")) == [(1, "unknown_station")]
    assert "unknown_station" in run("list").stdout
    assert run("list", "--why", "malformed").stdout == "No message matches.\n"


def test_what_was_scanned_or_typed_is_masked(run, two):
    """A barcode and a note are shown only when they are asked for; in lists never."""
    shown = run("show", 2).stdout + run("show", 2, "--json").stdout + run("list").stdout + run("list", "--json").stdout

    assert "Canary" not in shown
    assert "BR-00001" not in shown
    assert "(17 characters)" in shown
    assert "for Canary Reader" in run("show", 2, "--body").stdout
    assert "for Canary Reader" in json.loads(run("show", 2, "--body", "--json").stdout)["body"]


def test_nothing_of_that_number(run):
    """A number that is none gives code 1 and says where to look."""
    result = run("show", 77)

    assert result.exit_code == 1
    assert "quarantine list" in result.stderr
    assert run("retry", 77).exit_code == 1


def test_retry_and_drop(run, two, valkey):
    """Retried messages are on their queue, dropped ones on record; what was decided leaves the list."""
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
    assert "by Ann: a test program" in run("show", 2).stdout


@pytest.mark.parametrize("arguments", [["retry"], ["retry", "1", "--all"], ["drop", "1"], ["retry", "1", "--why", "x"]])
def test_wrong_use(run, arguments):
    """What does not say which messages, or drops without a reason, gives code 2."""
    assert run(*arguments).exit_code == 2


def test_gather_now(run, valkey):
    """What lies in the broker's dead letters is listed at once, and only once."""
    valkey.lpush(DEAD_LETTER_QUEUE, b"\xff rubbish")

    assert run("gather").stdout == "Dead letters gathered: 1.\n"
    assert json.loads(run("gather", "--json").stdout) == {"gathered": 0}
    assert listed(run("list", "--json")) == [(1, "malformed")]


@pytest.mark.long
@pytest.mark.thorough
@pytest.mark.databases("sqlite")
def test_a_scan_of_an_unknown_station_is_answered_after_all(deployment, library, broker_url, monkeypatch):
    """The station is added, the message retried: it is performed, its answer goes to the station, the row is settled."""
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
        [refused] = raw_station.replies_to(event_id)
        with engine.begin() as connection:
            branch = connection.execute(select(Branch.id).limit(1)).scalar_one()
            connection.execute(insert(Station).values(code="west-desk-1", branch_id=branch, key=KEY, active=True))
        result = CliRunner().invoke(main, ["quarantine", "retry", "1"])
        raw_station.wait_until(lambda: len(raw_station.replies()) == 2)
        raw_station.wait_until(lambda: states() == ["settled"])
    raw_station.close()

    assert (refused["outcome"], refused["reason"]) == ("refused", "unknown_station")
    assert result.exit_code == 0, result.output
    assert (raw_station.replies()[1]["outcome"], raw_station.replies()[1]["event_id"]) == ("returned", event_id)


@pytest.mark.long
@pytest.mark.thorough
@pytest.mark.databases("sqlite")
def test_the_other_workers_live_with_rubbish_and_housekeeping_gathers_it(deployment, library, valkey, raw_station):
    """Bytes that are no message, in the queues of printing and housekeeping: slips come out, and all of it is listed."""
    queues = (printing_queue("main"), PRINT_ACTIONS_QUEUE, HOUSEKEEPING_QUEUE)
    for queue in queues:
        valkey.lpush(queue, b"\x80 no message")
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
