# SPDX-License-Identifier: Apache-2.0
"""`bookdrop prints` and `bookdrop printers` on both databases: their output, and the actions of an operator."""

import json
from datetime import timedelta
from uuid import UUID

import pytest
from click.testing import CliRunner
from sqlalchemy import select, update

from schemas.models import Printer, PrintJob, RequestEvent
from schemas.print_jobs import PrintState as State
from schemas.slip_codes import short_code, slip_code
from tasks.printing.claim import claim
from tasks.printing.dispatch import dispatch_due_jobs
from tasks.printing.handler import print_job
from tests.network import free_port
from tests.slips import slip_id
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
    """Kind, actor and reason of the history entries about slips."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(RequestEvent.kind, RequestEvent.details, RequestEvent.note)
            .where(RequestEvent.kind.like("slip_%"))
            .order_by(RequestEvent.id)
        )
        return [(row.kind, row.details["actor"], row.note) for row in rows]


def print_tasks(valkey):
    """The arguments of the print tasks in the queue, oldest first."""
    return [json.loads(message)["headers"]["argsrepr"] for message in reversed(valkey.lrange("printing.main", 0, -1))]


def states(result):
    """The state of each print job in a JSON list."""
    assert result.exit_code == 0, result.output
    return {each["slip"]: each["state"] for each in json.loads(result.stdout)["slips"]}


def test_list_filters_by_state_branch_and_printer(run, create_print_job, engine):
    """Each filter lists its states, its branch and its printer; without a filter all print jobs are listed."""
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


def test_show_lists_attempts_and_actions(run, create_print_job, context, engine, library, clock):
    """`show` prints the state of a slip, each attempt with its error, and each action with its operator."""
    job_id = create_print_job()
    (library.spool / "main").write_text("in the way")
    print_job(job_id, context, lambda: 0.0)
    run("prints", "retry", job_id, "--actor", "ops", "--reason", "disk changed")

    shown = json.loads(run("prints", "show", job_id, "--json").stdout)
    words = run("prints", "show", f"BD:{job_id}").stdout

    assert shown["state"] == "failed_safe"
    assert ["not a folder" in each["error"] for each in shown["attempts"]] == [True]
    assert [(each["what"], each["actor"], each["reason"]) for each in shown["decisions"]] == [
        ("slip_retried", "ops", "disk changed")
    ]
    assert "attempt on main-slips: failed_safe: the spool folder is not a folder" in words
    assert "slip retried by ops (name typed, account " in words
    assert "Test Patron" not in words + json.dumps(shown)


@pytest.mark.parametrize(
    "form",
    [
        slip_code,
        short_code,
        lambda job_id: short_code(job_id).lower().replace(" ", ""),
        lambda job_id: job_id.hex[-12:],
        lambda job_id: job_id.hex[-20:],
        lambda job_id: f"BD:{job_id}",
    ],
)
def test_slip_is_found_by_each_form_of_its_code(run, create_print_job, form):
    """The code as scanned, its printed short form, and those of slips of earlier releases name the slip."""
    job_id, _ = create_print_job(), create_print_job()

    shown = run("prints", "show", form(job_id), "--json")

    assert json.loads(shown.stdout)["slip"] == str(job_id), shown.output
    assert short_code(job_id) in run("prints", "show", job_id).stdout


def test_short_form_of_several_slips_is_refused_with_the_candidates(run, create_print_job, engine):
    """Neither slip is cancelled; both are listed with their requests. One more digit selects one of them."""
    slips = [create_print_job(), create_print_job()]
    twins = [UUID(int=job_id.int >> 24 << 24 | 0xABC123) for job_id in slips]
    for job_id, changed in zip(slips, twins, strict=True):
        set_job(engine, job_id, id=changed)

    refused = run("prints", "cancel", "abc123")
    found = run("prints", "cancel", twins[0].hex[-12:])

    assert (refused.exit_code, found.exit_code) == (1, 0), refused.output + found.output
    assert "the end of several slips' codes" in refused.output
    assert "Nothing was changed" in refused.output
    assert all(str(job_id) in refused.output and short_code(job_id) in refused.output for job_id in twins)
    assert [job(engine, job_id).state for job_id in twins] == [State.CANCELLED, State.REQUESTED]


def test_retry_resets_the_backoff_of_printer_and_job(run, create_print_job, context, engine, library, clock, valkey):
    """A failed job is enqueued at once, and its printer, which counted as unavailable, is tried."""
    job_id = create_print_job()
    (library.spool / "main").write_text("in the way")
    for _ in range(6):
        clock.now += timedelta(minutes=5)
        print_job(job_id, context, lambda: 0.0)
    (library.spool / "main").unlink()

    assert print_job(job_id, context, lambda: 0.0) is State.HELD
    done = run("prints", "retry", job_id, "--actor", "ops")

    said = f"{job_id}  Retried: printer main-slips is tried now, the oldest slip of its line first\n"
    assert (done.exit_code, done.stdout) == (0, said)
    assert str(job_id) in print_tasks(valkey)[0]
    assert print_job(job_id, context, lambda: 0.0) is State.DONE
    assert decisions(engine) == [("slip_retried", "ops", None)]


def test_retry_all_enqueues_failed_and_held_jobs(run, create_print_job, engine):
    """`--all-failed` enqueues failed and held jobs of the named printer, but none that may be printed already."""
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
def test_job_that_may_be_printed_is_not_retried(run, create_print_job, engine, state, words):
    """A retry never prints a second slip: it is refused with the possible actions."""
    job_id = create_print_job()
    set_job(engine, job_id, state=state)

    refused = run("prints", "retry", job_id)

    assert refused.exit_code == 1
    assert words in refused.output
    assert refused.output.endswith("Nothing was changed.\n")
    assert (job(engine, job_id).state, decisions(engine)) == (state, [])


def test_reprint_creates_a_numbered_copy_with_its_reason(run, create_print_job, context, engine, library):
    """A copy is a print job with the next number, a reason and an actor; it replaces a job in doubt."""
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
    assert [slip_id(path) for path in library.spool.rglob("*.pdf")] == [f"{copy}-copy2"]
    assert job(engine, job_id).state is State.CANCELLED
    assert "Copy 3 ordered" in third.stdout
    assert decisions(engine) == [("slip_reprinted", "ops", "jammed"), ("slip_reprinted", "ops", "torn")]


@pytest.mark.parametrize("state", [State.REQUESTED, State.HELD, State.CLAIMED])
def test_job_that_was_not_sent_is_not_reprinted(run, create_print_job, engine, state):
    """A copy is refused while the first slip can still be printed."""
    job_id = create_print_job()
    set_job(engine, job_id, state=state)

    assert run("prints", "reprint", job_id, "--reason", "impatient").exit_code == 1


def test_printed_marks_a_job_in_doubt_as_done(run, create_print_job, engine):
    """Done, and no longer reconciled; a second time it is known already; for an unsent job it is refused."""
    job_id, unsent = create_print_job(), create_print_job()
    set_job(engine, job_id, state=State.UNKNOWN, last_error="its worker died while sending")

    first, second = (run("prints", "printed", job_id, "--actor", "ops").stdout for _ in range(2))

    assert "it printed" in first
    assert "Known already" in second
    assert (job(engine, job_id).state, job(engine, job_id).last_error) == (State.DONE, None)
    assert run("prints", "printed", unsent).exit_code == 1
    assert decisions(engine) == [("slip_seen", "ops", None)]


def test_cancelled_job_is_never_printed(run, create_print_job, context, engine, library):
    """A job that is cancelled before it was sent is not printed by any worker."""
    job_id = create_print_job()

    assert run("prints", "cancel", job_id, "--actor", "ops", "--reason", "book is lost").exit_code == 0
    assert print_job(job_id, context, lambda: 0.0) is None
    assert list(library.spool.rglob("*.pdf")) == []
    assert decisions(engine) == [("slip_cancelled", "ops", "book is lost")]


def test_claimed_or_sent_job_is_not_cancelled(run, create_print_job, context, engine):
    """A job that a worker has claimed, or that was sent, cannot be cancelled."""
    job_id = create_print_job()
    claim(job_id, context)
    in_hand = run("prints", "cancel", job_id)
    set_job(engine, job_id, state=State.DONE)

    assert (in_hand.exit_code, run("prints", "cancel", job_id).exit_code) == (1, 1)


def test_moved_job_is_printed_by_the_other_printer(run, create_print_job, context, engine, library):
    """A job moved from an unavailable printer is printed by the other one, and the history names the operator."""
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


def test_unknown_job_is_reported(run, library):
    """An invalid id ends with code 2, an unknown one with code 1."""
    assert run("prints", "show", "xyz").exit_code == 2
    unknown = run("prints", "retry", "01a20aee-905b-70e3-bbdd-6f98a0bee5d1")
    assert (unknown.exit_code, "There is no slip" in unknown.output) == (1, True)


def test_resumed_printer_prints_its_jobs_in_order(run, create_print_job, context, engine, library, clock):
    """On hold no job is printed; afterwards the sweep dispatches the jobs in order."""
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
    assert [slip_id(path) for path in out] == [str(job_id) for job_id in jobs]


def test_printer_list_shows_an_unavailable_printer(run, create_print_job, context, library):
    """The list names the printer and the cause."""
    job_id = create_print_job()
    (library.spool / "main").write_text("in the way")
    print_job(job_id, context, lambda: 0.0)

    assert "unavailable: the spool folder is not a folder" in run("printers", "list").stdout


def test_check_and_test_page_report_the_printer(run, library):
    """An available printer is ready and prints a test page. An unreachable one ends with code 1 and a message."""
    ready = run("printers", "check", "main-slips")
    page = run("printers", "test-page", "main-slips")
    run("printers", "add", "gone", "--branch", "main", "--uri", f"socket://127.0.0.1:{free_port()}")
    gone = json.loads((checked := run("printers", "check", "gone", "--json")).stdout)

    assert (ready.exit_code, page.exit_code, checked.exit_code) == (0, 0, 1), ready.output + page.output
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
def test_invalid_printer_is_not_added(run, engine, options, words):
    """Each mistake is reported, and nothing is changed."""
    refused = run("printers", "add", *options)

    assert refused.exit_code == 1
    assert words in refused.output
    with engine.connect() as connection:
        assert set(connection.execute(select(Printer.code)).scalars()) == {"main-slips", "north-slips"}


def test_default_and_station_printers_are_set(run, library, engine):
    """One default for each branch; a station may have a separate printer."""
    run(
        "printers", "add", "labels", "--branch", "main", "--uri", "lp://labels", "--default", "--station", "main-desk-1"
    )

    shown = {each["printer"]: each for each in json.loads(run("printers", "list", "--json").stdout)["printers"]}
    assert {code: each["default"] for code, each in shown.items()} == {
        "labels": True, "main-slips": False, "north-slips": True,
    }  # fmt: skip


def set_printer(engine, code, **columns):
    with engine.begin() as connection:
        connection.execute(update(Printer).where(Printer.code == code).values(**columns))


def test_retry_on_a_printer_on_hold_is_refused(run, create_print_job, engine, valkey):
    """No worker would send the slip: the refusal names the next step, and nothing is recorded. A fallback is used."""
    job_id = create_print_job()
    set_job(engine, job_id, state=State.HELD)
    set_printer(engine, "main-slips", on_hold=True)

    refused = run("prints", "retry", job_id)
    all_refused = run("prints", "retry", "--all-failed")
    assert run("printers", "add", "second", "--branch", "main", "--uri", "spool:///tmp/second").exit_code == 0
    with engine.begin() as connection:
        second = connection.execute(select(Printer.id).where(Printer.code == "second")).scalar_one()
    set_printer(engine, "main-slips", fallback_id=second)
    accepted = run("prints", "retry", job_id, "--actor", "ops")

    assert (refused.exit_code, "bookdrop printers resume main-slips" in refused.output) == (1, True)
    assert (all_refused.exit_code, "on hold" in all_refused.output) == (1, True)
    assert (accepted.exit_code, "its fallback prints the slip" in accepted.output) == (0, True)
    assert decisions(engine) == [("slip_retried", "ops", None)]


def test_move_all_counts_first_and_moves_what_was_counted(run, create_print_job, engine, valkey):
    """A dry run changes nothing; another number than expected changes nothing; the expected one moves exactly those."""
    waiting = [create_print_job() for _ in range(3)]
    set_job(engine, waiting[0], state=State.HELD)
    sent, voided = create_print_job(), create_print_job()
    set_job(engine, sent, state=State.DONE)
    set_job(engine, voided, voided_at=job(engine, voided).created_at)
    assert run("printers", "add", "second", "--branch", "main", "--uri", "spool:///tmp/second").exit_code == 0
    select_all = ("prints", "move", "--all", "--printer", "main-slips", "--to", "second")

    without_count = run(*select_all)
    counted = run(*select_all, "--dry-run")
    as_json = json.loads(run(*select_all, "--dry-run", "--json").stdout)
    other = run(*select_all, "--expect", 4)
    unchanged = {job(engine, each).printer_id for each in waiting}
    held_only = json.loads(run(*select_all, "--held", "--dry-run", "--json").stdout)
    before = len(print_tasks(valkey))
    moved = run(*select_all, "--expect", 3, "--actor", "ops", "--reason", "toner", "--json")

    assert without_count.exit_code == 2
    assert (counted.exit_code, counted.stdout.splitlines()[0]) == (0, "3 slips match. Nothing was changed.")
    assert (as_json["matching"], {each["slip"] for each in as_json["oldest"]}) == (3, set(map(str, waiting)))
    assert (other.exit_code, "3 slips match, not 4. Nothing was changed." in other.output) == (1, True)
    assert held_only["matching"] == 1
    report = json.loads(moved.stdout)
    assert ([each["slip"] for each in report["slips"]], report["refused"], report["left"]) == (
        [str(each) for each in waiting], [], 0,
    )  # fmt: skip
    assert {job(engine, each).printer_id for each in waiting}.isdisjoint(unchanged)
    assert {job(engine, each).printer_id for each in (sent, voided)} == unchanged
    assert decisions(engine) == [("slip_moved", "ops", "toner")] * 3
    published = print_tasks(valkey)[before:]
    assert [str(each) in task for each, task in zip(waiting, published, strict=True)] == [True] * 3
    assert run(*select_all, "--expect", 0).stdout == "No slip matches.\n"


def test_cancel_all_cancels_unsent_and_unknown_slips(run, create_print_job, engine):
    """Slips that were not sent or are unknown are cancelled; one that printed is not selected."""
    jobs = {state: create_print_job() for state in (State.HELD, State.UNKNOWN, State.DONE, State.SENDING)}
    for state, job_id in jobs.items():
        set_job(engine, job_id, state=state)

    done = run("prints", "cancel", "--all", "--expect", 2, "--actor", "ops")

    assert done.exit_code == 0, done.output
    assert {state: job(engine, job_id).state for state, job_id in jobs.items()} == {
        State.HELD: State.CANCELLED,
        State.UNKNOWN: State.CANCELLED,
        State.DONE: State.DONE,
        State.SENDING: State.SENDING,
    }


def test_move_all_to_an_unknown_printer_changes_nothing(run, create_print_job, engine):
    """Each slip refuses the move, and the command fails."""
    create_print_job()

    done = run("prints", "move", "--all", "--to", "nowhere", "--expect", 1)

    assert (done.exit_code, "There is no printer nowhere" in done.output) == (1, True)
    assert decisions(engine) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("prints", "cancel"),
        ("prints", "cancel", "01a20aee-905b-70e3-bbdd-6f98a0bee5d1", "--all", "--expect", "1"),
        ("prints", "cancel", "01a20aee-905b-70e3-bbdd-6f98a0bee5d1", "--expect", "1"),
        ("prints", "move", "01a20aee-905b-70e3-bbdd-6f98a0bee5d1", "--held", "--to", "second"),
        ("prints", "retry"),
        ("prints", "retry", "01a20aee-905b-70e3-bbdd-6f98a0bee5d1", "--all-failed"),
        ("prints", "retry", "01a20aee-905b-70e3-bbdd-6f98a0bee5d1", "--dry-run"),
    ],
)
def test_selecting_options_require_all(run, arguments):
    """One slip or all that match, not both."""
    assert run(*arguments).exit_code == 2
