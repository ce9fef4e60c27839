# SPDX-License-Identifier: Apache-2.0
"""The history records each person with the way in which they were identified, on both databases."""

import json
import os
import pwd

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from schemas.circulation_events import ReprintRequested
from schemas.events import Override
from schemas.models import PrintJob, QuarantinedMessage, RequestEvent
from schemas.print_jobs import PrintState as State
from schemas.request_status import RequestStatus
from tasks.events.processing import process_in
from tasks.operator import Identification, Operator, named_person
from tasks.printing.station_handler import SLIP_HANDLER
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tests.task_context import POLICY
from workers.cli import main

ACCOUNT = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def run(library, database_url, monkeypatch, tmp_path, broker_url):
    """Run `bookdrop ...` as a user who claims to be another in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    monkeypatch.setenv("BOOKDROP_BROKER_URL", broker_url)
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "the head librarian")

    def command(*arguments):
        done = CliRunner().invoke(main, [str(each) for each in arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    return command


def details(rows, kind):
    """The details of the lines of history of one kind, the oldest first."""
    return [line.details for line in rows(RequestEvent) if line.kind == kind]


def test_command_records_account_or_typed_name(run, create_print_job, rows):
    """Without --actor the account of the process is recorded; a typed name is, beside the account that typed it."""
    slip = create_print_job()

    run("prints", "retry", slip)
    run("prints", "retry", slip, "--actor", "ann", "--reason", "new toner")

    assert details(rows, "slip_retried") == [
        {"slip": str(slip), "actor": ACCOUNT, "identified_by": "account"},
        {"slip": str(slip), "actor": "ann", "identified_by": "typed", "account": ACCOUNT},
    ]
    shown = run("prints", "show", slip)
    assert f"slip retried by {ACCOUNT} (account of the computer)\n" in shown
    assert f"slip retried by ann (name typed, account {ACCOUNT}): new toner\n" in shown
    assert "head librarian" not in shown + run("prints", "show", slip, "--json")
    request = json.loads(run("prints", "show", slip, "--json"))["request"]
    assert f"by ann (name typed, account {ACCOUNT})\n" in run("requests", "show", request)


def test_override_records_the_supervisors_name_as_typed(run, library, context, rows):
    """The supervisor of an override is shown with the reason, and as a name that someone typed."""
    request, _ = library.request(RequestStatus.LOST, on_loan=True)
    event = library.return_requested(request, override=Override(reason="behind the shelf", supervisor="A. Chief"))
    with context.unit_of_work() as uow:
        process_in(uow, [Received(event, None)], RETURN_HANDLER, POLICY)

    shown = run("requests", "show", request)

    assert [each["override"] for each in details(rows, "returned")] == [
        {"reason": "behind the shelf", "supervisor": "A. Chief", "identified_by": "typed"}
    ]
    assert "override by A. Chief (name typed): behind the shelf\n" in shown


def test_reprint_of_a_station_names_no_person(create_print_job, library, context, rows):
    """A station's reprint is recorded as signed by the station."""
    slip = create_print_job()
    with context.sessions.begin() as session:
        job = session.scalars(select(PrintJob).where(PrintJob.id == slip)).one()
        job.state = State.DONE
        of_event = job.event_id
    event = library.event(ReprintRequested, reprints=of_event, reason="torn")
    with context.unit_of_work() as uow:
        process_in(uow, [Received(event, None)], SLIP_HANDLER, POLICY)

    [found] = details(rows, "slip_reprinted")

    assert (found["actor"], found["identified_by"]) == ("station main-desk-1", "station")


def test_quarantine_decision_records_how_the_operator_was_identified(run, library, context, rows):
    """The decision about a message has the typed name and the account; a decision of an earlier release has neither."""
    with context.unit_of_work() as uow:
        for _ in range(2):
            process_in(uow, [Received(library.scan("3100", station="west-desk-1"), None)], RETURN_HANDLER, POLICY)

    run("quarantine", "drop", 1, "--reason", "a test", "--actor", "ann")
    run("quarantine", "drop", 2, "--reason", "a test")

    assert [(row.decided_by, row.decided_identified_by, row.decided_account) for row in rows(QuarantinedMessage)] == [
        ("ann", "typed", ACCOUNT),
        (ACCOUNT, "account", None),
    ]
    assert f"by ann (name typed, account {ACCOUNT}): a test" in run("quarantine", "show", 1)
    assert f"by {ACCOUNT} (account of the computer): a test" in run("quarantine", "show", 2)


@pytest.mark.parametrize("stored", [None, "", "by an oracle"])
def test_line_of_another_release_shows_the_name_alone(stored):
    """A stored value that this release does not know, or none, adds nothing to the name."""
    assert named_person("ann", stored, "root") == "ann"


def test_operator_without_identification_counts_as_typed():
    """A caller that does not state how it identified the operator claims nothing."""
    assert Operator("ann").details == {"actor": "ann", "identified_by": Identification.TYPED}
