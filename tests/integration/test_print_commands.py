# SPDX-License-Identifier: Apache-2.0
"""`bookdrop prints` and `bookdrop printers` on both databases: what is shown, and what a person decides."""

import json
from datetime import timedelta
from uuid import UUID

import pytest
from click.testing import CliRunner
from sqlalchemy import select, update

from schemas.models import OutboxEntry, Printer, PrintJob, RequestEvent
from schemas.print_jobs import PrintState as State
from tasks.printing import task as tasks
from tasks.printing.claim import claim
from tasks.printing.dispatch import dispatch_due_jobs
from tasks.printing.handler import print_job
from tests.network import free_port
from workers.cli import main


@pytest.fixture
def run(library, database_url, monkeypatch, tmp_path, broker_url):
    """Run `bookdrop ...`; the library of the tests is there already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    monkeypatch.setenv("BOOKDROP_BROKER_URL", broker_url)
    return lambda *arguments: CliRunner().invoke(main, [str(each) for each in arguments])


def set_job(engine, job_id, **columns):
    with engine.begin() as connection:
        connection.execute(update(PrintJob).where(PrintJob.id == job_id).values(**columns))


def job(engine, job_id):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob).where(PrintJob.id == job_id)).one()


def decisions(engine):
    """What, by whom, why: the lines of the requests' histories that are about slips."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(RequestEvent.kind, RequestEvent.details, RequestEvent.note)
            .where(RequestEvent.kind.like("slip_%"))
            .order_by(RequestEvent.id)
        )
        return [(row.kind, row.details["actor"], row.note) for row in rows]


def orders(valkey):
    """Ids of the slips that print workers were asked for."""
    return [json.loads(message)["headers"]["argsrepr"] for message in reversed(valkey.lrange("printing.main", 0, -1))]


def states(result):
    assert result.exit_code == 0, result.output
    return {each["slip"]: each["state"] for each in json.loads(result.stdout)["slips"]}


def test_lists_show_what_is_asked_for(run, create_print_job, engine):
    """Each filter lets through its states, its branch and its printer; without one all slips are shown."""
    jobs = {
        state: create_print_job() for state in (State.HELD, State.FAILED_SAFE, State.UNKNOWN, State.EXPIRED, State.DONE)
    }
    for state, job_id in jobs.items():
        set_job(engine, job_id, state=state, last_error="no paper" if state is State.HELD else None)
    shown = {str(job_id): state.value for state, job_id in jobs.items()}

    def only(*kinds):
        return {each: state for each, state in shown.items() if state in kinds}

    assert states(run("prints", "list", "--json")) == shown
    assert states(run("prints", "list", "--held", "--json")) == only("held")
    assert states(run("prints", "list", "--failed", "--unknown", "--json")) == only("failed_safe", "unknown")
    assert states(run("prints", "list", "--expired", "--branch", "main", "--json")) == only("expired")
    assert states(run("prints", "list", "--branch", "north", "--json")) == {}
    assert states(run("prints", "list", "--printer", "main-slips", "--json")) == shown
    assert states(run("prints", "unconfirmed", "--json")) == only("done", "unknown")
    assert "Slip is held, the Return stands: no paper" in run("prints", "list", "--held").stdout
    assert run("prints", "list", "--branch", "north").stdout == "No slip matches.\n"


def test_show_tells_every_try_and_decision(run, create_print_job, context, engine, library, clock):
    """`show` tells where the slip is, each try with its error, and who decided what."""
    job_id = create_print_job()
    (library.spool / "main").write_text("in the way")
    print_job(job_id, context, lambda: 0.0)
    run("prints", "retry", job_id, "--actor", "ops", "--reason", "disk changed")

    story = json.loads(run("prints", "show", job_id, "--json").stdout)
    words = run("prints", "show", f"BD:{job_id}").stdout

    assert story["state"] == "failed_safe"
    assert ["not a folder" in each["error"] for each in story["attempts"]] == [True]
    assert [(each["what"], each["actor"], each["reason"]) for each in story["decisions"]] == [
        ("slip_retried", "ops", "disk changed")
    ]
    assert "attempt on main-slips: failed_safe: the spool folder is not a folder" in words
    assert "slip retried by ops: disk changed" in words
    assert "Test Reader" not in words + json.dumps(story)


def test_retry_ends_the_wait_of_printer_and_slip(run, create_print_job, context, engine, library, clock, valkey):
    """A failed slip is ordered at once, and its printer, which counted as away, is tried."""
    job_id = create_print_job()
    (library.spool / "main").write_text("in the way")
    for _ in range(6):
        clock.now += timedelta(minutes=5)
        print_job(job_id, context, lambda: 0.0)
    (library.spool / "main").unlink()

    assert print_job(job_id, context, lambda: 0.0) is State.HELD
    done = run("prints", "retry", job_id, "--actor", "ops")

    assert (done.exit_code, done.stdout) == (0, f"{job_id}  Ordered again\n")
    assert str(job_id) in orders(valkey)[0]
    assert print_job(job_id, context, lambda: 0.0) is State.DONE
    assert decisions(engine) == [("slip_retried", "ops", None)]


def test_retry_all_orders_every_waiting_slip(run, create_print_job, engine):
    """`--all-failed` takes what failed and what is held, of the named printer; not what may be on paper."""
    held, failed, unknown = create_print_job(), create_print_job(), create_print_job()
    for job_id, state in ((held, State.HELD), (failed, State.FAILED_SAFE), (unknown, State.UNKNOWN)):
        set_job(engine, job_id, state=state)

    nowhere = states(run("prints", "retry", "--all-failed", "--printer", "other", "--json"))
    found = states(run("prints", "retry", "--all-failed", "--printer", "main-slips", "--json"))

    assert (nowhere, set(found)) == ({}, {str(held), str(failed)})


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State.UNKNOWN, "Look there: if it is, mark it (printed); if not, order a copy (reprint)"),
        (State.DONE, "For another one, order a copy (reprint)"),
        (State.SENDING, "being sent just now"),
        (State.EXPIRED, "reprint"),
    ],
)
def test_what_may_be_on_paper_is_not_retried(run, create_print_job, engine, state, words):
    """A retry never makes a second slip: it is refused with what can be done."""
    job_id = create_print_job()
    set_job(engine, job_id, state=state)

    refused = run("prints", "retry", job_id)

    assert refused.exit_code == 1
    assert words in refused.output
    assert refused.output.endswith("Nothing was changed.\n")
    assert (job(engine, job_id).state, decisions(engine)) == (state, [])


def test_a_reprint_says_copy_2_and_why(run, create_print_job, context, engine, library):
    """A copy is a slip of its own with the next number, a reason and an actor; the doubt about the first one ends."""
    job_id = create_print_job()
    set_job(engine, job_id, state=State.UNKNOWN)

    without = run("prints", "reprint", job_id)
    blank = run("prints", "reprint", job_id, "--reason", " ")
    [copy] = states(run("prints", "reprint", job_id, "--reason", "jammed", "--actor", "ops", "--json"))
    assert print_job(UUID(copy), context, lambda: 0.0) is State.DONE
    third = run("prints", "reprint", copy, "--reason", "torn", "--actor", "ops")

    assert (without.exit_code, blank.exit_code) == (2, 1)
    row = job(engine, UUID(copy))
    assert (row.copy_number, str(row.reprint_of), row.reason, row.actor) == (2, str(job_id), "jammed", "ops")
    assert row.content["copy_number"] == 2
    assert row.content["job_id"] == copy
    assert [path.name for path in library.spool.rglob("*.pdf")] == [f"{copy}-copy2.pdf"]
    assert job(engine, job_id).state is State.CANCELLED
    assert "Copy 3 ordered" in third.stdout
    assert decisions(engine) == [("slip_reprinted", "ops", "jammed"), ("slip_reprinted", "ops", "torn")]


@pytest.mark.parametrize("state", [State.REQUESTED, State.HELD, State.CLAIMED])
def test_what_has_not_been_sent_gets_no_copy(run, create_print_job, engine, state):
    """No second slip while the first one can still come out."""
    job_id = create_print_job()
    set_job(engine, job_id, state=state)

    assert run("prints", "reprint", job_id, "--reason", "impatient").exit_code == 1


def test_printed_ends_the_doubt(run, create_print_job, engine):
    """A person saw it: done, and not asked about any more; said twice it is known already; of an unsent slip refused."""
    job_id, unsent = create_print_job(), create_print_job()
    set_job(engine, job_id, state=State.UNKNOWN, last_error="its worker died while sending")

    first, second = (run("prints", "printed", job_id, "--actor", "ops").stdout for _ in range(2))

    assert "it printed" in first
    assert "Known already" in second
    assert (job(engine, job_id).state, job(engine, job_id).last_error) == (State.DONE, None)
    assert run("prints", "printed", unsent).exit_code == 1
    assert decisions(engine) == [("slip_seen", "ops", None)]


def test_a_cancelled_slip_never_comes_out(run, create_print_job, context, engine, library):
    """Cancelled before it was sent: nobody prints it."""
    job_id = create_print_job()

    assert run("prints", "cancel", job_id, "--actor", "ops", "--reason", "book is lost").exit_code == 0
    assert print_job(job_id, context, lambda: 0.0) is None
    assert list(library.spool.rglob("*.pdf")) == []
    assert decisions(engine) == [("slip_cancelled", "ops", "book is lost")]


def test_what_is_in_hand_or_sent_cannot_be_cancelled(run, create_print_job, context, engine):
    """A slip that a worker has, or the printer, is not taken back by a word."""
    job_id = create_print_job()
    claim(job_id, context)
    in_hand = run("prints", "cancel", job_id)
    set_job(engine, job_id, state=State.DONE)

    assert (in_hand.exit_code, run("prints", "cancel", job_id).exit_code) == (1, 1)


def test_a_slip_moves_to_another_printer(run, create_print_job, context, engine, library):
    """Its printer is away: moved, it comes out on the other one, and the history says who moved it."""
    job_id = create_print_job()
    (library.spool / "main").write_text("in the way")
    print_job(job_id, context, lambda: 0.0)
    added = run("printers", "add", "second", "--branch", "main", "--uri", f"spool://{library.spool}/second")
    moved = run("prints", "move", job_id, "--to", "second", "--actor", "ops")

    assert (added.exit_code, moved.exit_code) == (0, 0), added.output + moved.output
    assert print_job(job_id, context, lambda: 0.0) is State.DONE
    assert [path.parent.name for path in library.spool.rglob("*.pdf")] == ["second"]
    assert run("prints", "move", job_id, "--to", "second").exit_code == 1
    assert "There is no printer nowhere" in run("prints", "move", create_print_job(), "--to", "nowhere").output
    assert decisions(engine) == [("slip_moved", "ops", None)]


def test_a_slip_nobody_knows_is_told(run, library):
    """An id that is none, and one that nobody has."""
    assert run("prints", "show", "xyz").exit_code == 2
    unknown = run("prints", "retry", "01a20aee-905b-70e3-bbdd-6f98a0bee5d1")
    assert (unknown.exit_code, "There is no slip" in unknown.output) == (1, True)


def test_hold_and_resume(run, create_print_job, context, engine, library, clock):
    """On hold no slip goes out; afterwards the line goes out in order, as the sweep orders it."""
    jobs = [create_print_job() for _ in range(3)]
    run("printers", "hold", "main-slips")
    assert print_job(jobs[0], context, lambda: 0.0) is State.HELD
    shown = json.loads(run("printers", "list", "--json").stdout)["printers"]
    assert [(each["on_hold"], each["waiting"]) for each in shown if each["printer"] == "main-slips"] == [(True, 3)]
    clock.now += timedelta(minutes=10)
    assert list(dispatch_due_jobs(context)) == []

    run("printers", "resume", "main-slips")
    clock.now += timedelta(minutes=1)
    for job_id in dispatch_due_jobs(context):
        print_job(job_id, context, lambda: 0.0)

    out = sorted(library.spool.rglob("*.pdf"), key=lambda path: path.stat().st_mtime_ns)
    assert [path.stem for path in out] == [str(job_id) for job_id in jobs]


def test_a_printer_in_trouble_is_shown(run, create_print_job, context, library):
    """The list says which printer is away, and why."""
    job_id = create_print_job()
    (library.spool / "main").write_text("in the way")
    print_job(job_id, context, lambda: 0.0)

    assert "unavailable: the spool folder is not a folder" in run("printers", "list").stdout


def test_check_and_test_page(run, library):
    """A printer that is there: ready, and a test page that no request has. One that is not: exit 1, in words."""
    ready = run("printers", "check", "main-slips")
    page = run("printers", "test-page", "main-slips")
    run("printers", "add", "gone", "--branch", "main", "--uri", f"socket://127.0.0.1:{free_port()}")
    gone = json.loads((asked := run("printers", "check", "gone", "--json")).stdout)

    assert (ready.exit_code, page.exit_code, asked.exit_code) == (0, 0, 1), ready.output + page.output
    assert len(list(library.spool.rglob("test-*.pdf"))) == 1
    assert gone["ready"] is False
    assert run("printers", "test-page", "gone").exit_code == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("x", "--branch", "main", "--uri", "carrier-pigeon://roof"), "carrier-pigeon"),
        (("x", "--branch", "nowhere", "--uri", "lp://slips"), "There is no branch nowhere"),
        (("X Y", "--branch", "main", "--uri", "lp://slips"), "not a printer's code"),
        (("x", "--branch", "main", "--uri", "lp://slips", "--media", "papyrus"), "papyrus"),
        (("x", "--branch", "main", "--uri", "socket://p", "--media", "a4-corner"), "has no a4-corner"),
        (("x", "--branch", "main", "--uri", "lp://slips", "--fallback", "none"), "There is no printer none"),
        (("x", "--branch", "main", "--uri", "lp://slips", "--station", "none"), "There is no station none"),
    ],
)
def test_a_printer_that_cannot_be_is_not_registered(run, engine, options, words):
    """Each mistake is told, and nothing is changed."""
    refused = run("printers", "add", *options)

    assert refused.exit_code == 1
    assert words in refused.output
    with engine.connect() as connection:
        assert set(connection.execute(select(Printer.code)).scalars()) == {"main-slips", "north-slips"}


def test_default_and_station_printers(run, library, engine):
    """One default for each branch; a station may have a printer of its own."""
    run(
        "printers", "add", "labels", "--branch", "main", "--uri", "lp://labels", "--default", "--station", "main-desk-1"
    )

    shown = {each["printer"]: each for each in json.loads(run("printers", "list", "--json").stdout)["printers"]}
    assert {code: each["default"] for code, each in shown.items()} == {
        "labels": True, "main-slips": False, "north-slips": True,
    }  # fmt: skip


def test_the_same_decisions_are_tasks(in_worker, create_print_job, engine):
    """What commands decide, tasks decide too, as Flower's API can start them; a refusal is a result in words."""
    retried, copied, seen, cancelled, moved = (create_print_job() for _ in range(5))
    set_job(engine, copied, state=State.DONE)
    set_job(engine, seen, state=State.UNKNOWN)

    assert tasks.retry_slip(str(retried), "ops") == "Ordered again"
    assert tasks.reprint_slip(str(copied), "ops", "torn") == "Copy 2 ordered"
    assert tasks.slip_printed(str(seen), "ops") == "Noted: it printed"
    assert tasks.cancel_slip(str(cancelled), "ops") == "Cancelled"
    assert tasks.move_slip(str(moved), "ops", "north-slips") == "Goes to printer north-slips"
    assert tasks.retry_slip(str(seen), "ops").startswith("refused: ")
    assert tasks.retry_slip("no id", "ops") == "refused: that is not a slip's id"
    assert [kind for kind, actor, _ in decisions(engine) if actor == "ops"] == [
        "slip_retried", "slip_reprinted", "slip_seen", "slip_cancelled", "slip_moved",
    ]  # fmt: skip
    with engine.connect() as connection:
        assert "printing.main" in connection.execute(select(OutboxEntry.queue)).scalars().all()
