# SPDX-License-Identifier: Apache-2.0
"""From a Return to the slip in its folder, on both databases: printed once, whatever fails in between."""

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import delete, insert, select, update

from schemas.models import OutboxEntry, PrintAttempt, Printer, PrintJob
from schemas.print_jobs import TRANSITIONS, PrintSlip
from schemas.print_jobs import PrintState as State
from schemas.replies import SlipNotice
from tasks.print_jobs import state_change
from tasks.printing.claim import LEASE, claim
from tasks.printing.dispatch import dispatch_due_jobs
from tasks.printing.handler import print_job
from tasks.printing.state_machine import REDISPATCH_AFTER
from tasks.printing.task import print_slip, sweep_prints
from tests.slips import slip_id


def job(engine, job_id):
    with engine.connect() as connection:
        return connection.execute(select(PrintJob).where(PrintJob.id == job_id)).one()


def set_job(engine, job_id, **columns):
    with engine.begin() as connection:
        connection.execute(update(PrintJob).where(PrintJob.id == job_id).values(**columns))


def set_printers(engine, **columns):
    with engine.begin() as connection:
        connection.execute(update(Printer).values(**columns))


def notices(engine):
    with engine.connect() as connection:
        bodies = connection.execute(
            select(OutboxEntry.body).where(OutboxEntry.queue == "reply.main-desk-1").order_by(OutboxEntry.id)
        ).scalars()
        return [SlipNotice.model_validate_json(body) for body in bodies]


def slips(library):
    return sorted(slip_id(path) for path in library.spool.rglob("*.pdf"))


def break_spool(library):
    """Put a file in place of the folder: the printer is unavailable."""
    (library.spool / "main").write_text("in the way")


def mend_spool(library):
    (library.spool / "main").unlink()


def test_print_task_prints_the_slip_once(create_print_job, context, engine, library):
    """The slip is printed, recorded and reported in a notice; a second print task has no effect."""
    job_id = create_print_job()

    first = print_job(job_id, context, lambda: 0.0)
    second = print_job(job_id, context, lambda: 0.0)

    assert (first, second) == (State.DONE, None)
    assert slips(library) == [str(job_id)]
    done = job(engine, job_id)
    assert (done.state, done.attempts, slip_id(done.spool_id)) == (State.DONE, 1, str(job_id))
    assert [notice.message for notice in notices(engine)] == ["Slip sent to the printer main-slips"]


@pytest.mark.parametrize(
    ("barcode", "begins"),
    [
        ("31000000170", "31000000170-BD"),
        ("../../a b/C$..", "a_b_C-BD"),
        (".", "item-BD"),
        ("紅123", "123-BD"),
        ("X" * 64, "X" * 40 + "-BD"),
        ("-rf", "rf-BD"),
    ],
)
def test_file_of_a_slip_is_named_by_barcode_and_code(create_print_job, context, engine, library, barcode, begins):
    """Other characters than letters and digits become underscores, and the name has at most 40 characters of a barcode."""
    job_id = create_print_job()
    set_job(engine, job_id, content={**job(engine, job_id).content, "barcode": barcode})

    assert print_job(job_id, context, lambda: 0.0) is State.DONE

    [path] = library.spool.rglob("*.pdf")
    assert path.name.startswith(begins)
    assert slip_id(path) == str(job_id)


def test_failed_job_is_retried_by_the_sweep(create_print_job, context, engine, clock, library):
    """The printer is unavailable: the job waits, the sweep dispatches it when it is due, and it is printed once."""
    job_id = create_print_job()
    break_spool(library)

    failed = print_job(job_id, context, lambda: 0.0)
    too_early = dispatch_due_jobs(context)
    mend_spool(library)
    clock.now += timedelta(seconds=2)
    due = dispatch_due_jobs(context)
    done = print_job(job_id, context, lambda: 0.0)

    assert failed is State.FAILED_SAFE
    assert (list(too_early), list(due)) == ([], [job_id])
    assert done is State.DONE
    assert slips(library) == [str(job_id)]
    with engine.connect() as connection:
        attempts = connection.execute(select(PrintAttempt.outcome, PrintAttempt.error).order_by(PrintAttempt.id)).all()
    assert [outcome for outcome, _ in attempts] == [State.FAILED_SAFE, State.DONE]
    assert "not a folder" in attempts[0].error
    assert [notice.state for notice in notices(engine)] == ["failed_safe", "done"]


def test_job_is_held_after_five_failures(create_print_job, context, engine, clock, library):
    """After five failures the job is held, reported once, and still retried periodically."""
    job_id = create_print_job()
    break_spool(library)

    states = []
    for _ in range(7):
        states.append(print_job(job_id, context, lambda: 0.0))
        clock.now += timedelta(minutes=5)

    assert states == [State.FAILED_SAFE] * 4 + [State.HELD] * 3
    assert [notice.state for notice in notices(engine)] == ["failed_safe", "held"]
    mend_spool(library)
    assert print_job(job_id, context, lambda: 0.0) is State.DONE


def test_printer_on_hold_holds_its_jobs(create_print_job, context, engine, clock, library):
    """A printer on hold gets no job; afterwards it does."""
    job_id = create_print_job()
    set_printers(engine, on_hold=True)

    held = print_job(job_id, context, lambda: 0.0)
    set_printers(engine, on_hold=False)
    clock.now += REDISPATCH_AFTER
    done = print_job(job_id, context, lambda: 0.0)

    assert (held, done) == (State.HELD, State.DONE)
    assert notices(engine)[0].message == "Slip is held, the Return stands: printer main-slips is on hold"


def test_branch_without_a_printer_holds_its_jobs(create_print_job, context, engine, clock, library):
    """Held, and reported once. When the branch gets a printer, the slip is printed there."""
    job_id = create_print_job()
    set_job(engine, job_id, printer_id=None)
    set_printers(engine, is_default=False)

    held = []
    for _ in range(3):
        held.append(print_job(job_id, context, lambda: 0.0))
        clock.now += REDISPATCH_AFTER
    set_printers(engine, is_default=True)
    done = print_job(job_id, context, lambda: 0.0)

    assert (held, done) == ([State.HELD] * 3, State.DONE)
    assert [notice.message for notice in notices(engine)] == [
        "Slip is held, the Return stands: no printer is set up for this branch",
        "Slip sent to the printer main-slips",
    ]
    assert job(engine, job_id).printer_id is not None


def test_notice_warns_of_missing_glyphs(create_print_job, context, engine, library):
    """A title with characters that the font lacks is printed, and the notice asks to check the slip."""
    job_id = create_print_job()
    content = {**job(engine, job_id).content, "title": "紅樓夢"}
    set_job(engine, job_id, content=content)

    assert print_job(job_id, context, lambda: 0.0) is State.DONE
    assert [notice.message for notice in notices(engine)] == [
        "Slip sent to the printer main-slips: look at it, letters are lacking in the title"
    ]
    assert job(engine, job_id).last_error is None


def test_unreadable_slip_content_fails_safe(create_print_job, context, engine, library):
    """Stored content that cannot be rendered does not end the worker: the job waits with its error."""
    job_id = create_print_job()
    set_job(engine, job_id, content={"not": "a slip"})

    assert print_job(job_id, context, lambda: 0.0) is State.FAILED_SAFE
    assert job(engine, job_id).last_error == "the slip could not be drawn (ValidationError)"


@pytest.mark.parametrize(
    ("printer", "why"),
    [
        ({"media": "papyrus"}, "no slip can be laid out for its medium papyrus"),
        ({"uri": "carrier-pigeon://roof"}, "carrier-pigeon://roof is not the URI of a supported printer"),
    ],
)
def test_misconfigured_printer_fails_safe(create_print_job, context, engine, library, printer, why):
    """A printer that cannot be used as configured: the job waits with its error until the printer is corrected."""
    job_id = create_print_job()
    set_printers(engine, **printer)

    assert print_job(job_id, context, lambda: 0.0) is State.FAILED_SAFE
    assert job(engine, job_id).last_error.startswith(why)


@pytest.mark.parametrize("state", [State.CLAIMED, State.RENDERED, State.SENDING])
def test_job_of_a_dead_worker_is_printed_once(create_print_job, context, engine, clock, library, state):
    """When the lease of a dead worker ends, another one prints the job; a folder can repeat."""
    job_id = create_print_job()
    set_job(engine, job_id, state=state, claimed_by="dead", lease_until=clock.now + LEASE)

    meanwhile = print_job(job_id, context, lambda: 0.0)
    clock.now += LEASE
    due = dispatch_due_jobs(context)
    done = print_job(job_id, context, lambda: 0.0)

    assert (meanwhile, list(due), done) == (None, [job_id], State.DONE)
    assert slips(library) == [str(job_id)]


def test_job_of_a_worker_that_died_while_sending_is_unknown(create_print_job, context, engine, clock, library):
    """On a printer that cannot repeat the result is unknown, and no worker prints it again."""
    job_id = create_print_job()
    set_printers(engine, uri="ipp://printer/slips")
    set_job(engine, job_id, state=State.SENDING, claimed_by="dead", lease_until=clock.now, attempts=1)

    state = print_job(job_id, context, lambda: 0.0)
    clock.now += timedelta(days=1)

    assert state is State.UNKNOWN
    assert list(dispatch_due_jobs(context)) == []
    assert print_job(job_id, context, lambda: 0.0) is None
    assert [notice.message for notice in notices(engine)] == [
        "Look at the printer main-slips: the slip may be there or not: its worker died while sending"
    ]


def test_attempt_of_a_dead_worker_is_closed(create_print_job, context, engine, clock, library):
    """Each attempt records its result, also that of a worker that died."""
    job_id = create_print_job()
    claim(job_id, context)
    clock.now += LEASE

    print_job(job_id, context, lambda: 0.0)

    with engine.connect() as connection:
        tries = connection.execute(select(PrintAttempt.outcome, PrintAttempt.error).order_by(PrintAttempt.id)).all()
    assert tries == [(State.FAILED_SAFE, "its worker died"), (State.DONE, None)]


def test_concurrent_print_tasks_print_once(create_print_job, context, engine, library):
    """The same print task in eight workers at once: one prints, the others have nothing to do."""
    job_id = create_print_job()
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        return print_job(job_id, dataclasses.replace(context, worker=f"worker-{number}"), lambda: 0.0)

    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(work, range(8)))

    assert sorted(states, key=str) == [None] * 7 + [State.DONE]
    assert slips(library) == [str(job_id)]
    assert job(engine, job_id).attempts == 1


def test_lost_print_task_is_dispatched_again_once(create_print_job, context, clock, engine):
    """A job whose print task was lost is dispatched by the sweep; two sweeps in a row dispatch it once."""
    job_id = create_print_job()

    early = dispatch_due_jobs(context)
    clock.now += REDISPATCH_AFTER
    first, second = dispatch_due_jobs(context), dispatch_due_jobs(context)

    assert (list(early), list(first), list(second)) == ([], [job_id], [])


@pytest.mark.parametrize(
    "columns",
    [
        {"state": State.FAILED_SAFE, "next_attempt_at": "now", "attempts": 1},
        {"state": State.HELD, "next_attempt_at": "now", "attempts": 6},
        {"state": State.RENDERED, "lease_until": "now", "attempts": 1},
    ],
)
def test_due_job_is_dispatched_once_and_can_be_claimed(create_print_job, context, clock, engine, library, columns):
    """While a print task is queued the sweep does not dispatch the job again, and the worker can claim it."""
    job_id = create_print_job()
    set_job(engine, job_id, **{name: clock.now if value == "now" else value for name, value in columns.items()})

    first = dispatch_due_jobs(context)
    clock.now += timedelta(seconds=5)
    second = dispatch_due_jobs(context)
    done = print_job(job_id, context, lambda: 0.0)

    assert (list(first), list(second), done) == ([job_id], [], State.DONE)


def test_unclaimed_job_is_dispatched_with_backoff(create_print_job, context, clock):
    """A job that no worker claims is dispatched again, each time after a longer delay."""
    create_print_job()

    ordered = []
    for second in range(0, 600, 10):
        ordered += [second for _ in dispatch_due_jobs(context)]
        clock.now += timedelta(seconds=10)

    assert ordered == [30, 60, 120, 240, 480]


@pytest.mark.parametrize("columns", [{"claimed_by": "another"}, {"attempts": 2}])
def test_worker_without_its_lease_sends_nothing(create_print_job, context, engine, library, columns):
    """When another worker, or the same one again, claimed the job between claim and sending, the first sends nothing."""
    job_id = create_print_job()
    original = context.publisher.publish_outbox

    def taken_over(entries):
        set_job(engine, job_id, **columns)
        return original(entries)

    context.publisher.publish_outbox = taken_over

    assert print_job(job_id, context, lambda: 0.0) is None
    assert slips(library) == []


def add_printer(engine, library, code="second-slips", **columns):
    """Add a second printer to the branch; return its id."""
    with engine.begin() as connection:
        branch_id = connection.execute(select(Printer.branch_id).where(Printer.code == "main-slips")).scalar_one()
        return connection.execute(
            insert(Printer)
            .values(code=code, branch_id=branch_id, uri=f"spool://{library.spool}/{code}", media="label-4x6", **columns)
            .returning(Printer.id)
        ).scalar_one()


def order_of_slips(library):
    """The slips in the order in which they were printed."""
    return [slip_id(path) for path in sorted(library.spool.rglob("*.pdf"), key=lambda path: path.stat().st_mtime_ns)]


def test_jobs_of_a_printer_are_printed_in_order(create_print_job, context, engine, library):
    """The print task of the youngest of ten jobs prints the older ones first."""
    jobs = [create_print_job() for _ in range(10)]

    assert print_job(jobs[-1], context, lambda: 0.0) is State.DONE
    assert order_of_slips(library) == [str(job_id) for job_id in jobs]


def test_printer_has_one_claimed_job_at_a_time(create_print_job, context, engine, library):
    """While a worker has a job of a printer, no other claims a job of that printer; it claims those of others."""
    first, second, elsewhere = create_print_job(), create_print_job(), create_print_job()
    set_job(engine, elsewhere, printer_id=add_printer(engine, library))
    claim(first, context)
    other = dataclasses.replace(context, worker="another")

    assert print_job(second, other, lambda: 0.0) is None
    assert print_job(elsewhere, other, lambda: 0.0) is State.DONE
    assert slips(library) == [str(elsewhere)]


def test_jobs_of_an_unavailable_printer_share_its_backoff(create_print_job, context, engine, clock, library):
    """Two hundred Returns during an outage: few attempts, then every slip once, in order."""
    break_spool(library)
    jobs = [create_print_job() for _ in range(200)]
    for job_id in jobs:
        print_job(job_id, context, lambda: 0.0)
    for _ in range(60):  # an hour
        clock.now += timedelta(minutes=1)
        for job_id in dispatch_due_jobs(context):
            print_job(job_id, context, lambda: 0.0)
    with engine.connect() as connection:
        tries = len(connection.execute(select(PrintAttempt.id)).all())
    mend_spool(library)
    for _ in range(10):
        clock.now += timedelta(minutes=1)
        for job_id in dispatch_due_jobs(context):
            print_job(job_id, context, lambda: 0.0)

    assert tries < 30
    assert order_of_slips(library) == [str(job_id) for job_id in jobs]
    with engine.connect() as connection:
        assert set(connection.execute(select(PrintJob.state)).scalars()) == {State.DONE}
        assert connection.execute(
            select(Printer.failures, Printer.retry_at).where(Printer.code == "main-slips")
        ).one() == (0, None)


def test_new_job_of_an_unavailable_printer_is_held_at_once(create_print_job, context, engine, clock, library):
    """A new job is held without an attempt, and its station gets a notice with the cause."""
    set_printers(engine, failures=6, retry_at=clock.now + timedelta(minutes=1), trouble="no paper")
    job_id = create_print_job()

    assert print_job(job_id, context, lambda: 0.0) is State.HELD
    assert notices(engine)[-1].message == (
        "Slip is held, the Return stands: printer main-slips is unavailable, no paper"
    )


@pytest.mark.parametrize(
    "trouble", [{"on_hold": True}, {"failures": 6, "retry_at": "later", "trouble": "no paper"}], ids=["hold", "away"]
)
def test_fallback_prints_the_jobs_of_an_unavailable_printer(create_print_job, context, engine, clock, library, trouble):
    """With a fallback, all jobs of a printer on hold or unavailable are printed there, in order."""
    jobs = [create_print_job() for _ in range(3)]
    fallback = add_printer(engine, library)
    values = {name: clock.now + timedelta(hours=1) if value == "later" else value for name, value in trouble.items()}
    with engine.begin() as connection:
        connection.execute(update(Printer).where(Printer.code == "main-slips").values(fallback_id=fallback, **values))

    assert print_job(jobs[1], context, lambda: 0.0) is State.DONE
    assert sorted(slip_id(path) for path in (library.spool / "second-slips").glob("*.pdf")) == sorted(map(str, jobs))


def test_job_waits_without_a_fallback(create_print_job, context, engine, library):
    """A second printer of the branch that is not the fallback gets no job."""
    job_id = create_print_job()
    add_printer(engine, library)
    with engine.begin() as connection:
        connection.execute(update(Printer).where(Printer.code == "main-slips").values(on_hold=True))

    assert print_job(job_id, context, lambda: 0.0) is State.HELD
    assert slips(library) == []


def test_failing_job_does_not_block_the_next_ones(create_print_job, context, engine, library):
    """A job that cannot be rendered waits; the next ones are printed."""
    bad, good = create_print_job(), create_print_job()
    set_job(engine, bad, content={"not": "a slip"})

    assert print_job(bad, context, lambda: 0.0) is State.FAILED_SAFE
    assert slips(library) == [str(good)]


def test_job_expires_after_a_day(create_print_job, context, engine, clock, library):
    """After a day the place of the item is unknown: the job is not sent, and its station gets a notice."""
    swept, ordered = create_print_job(), create_print_job()
    set_job(engine, swept, next_attempt_at=clock.now + timedelta(days=9), state=State.HELD)
    clock.now += timedelta(days=1)

    assert print_job(ordered, context, lambda: 0.0) is State.EXPIRED
    dispatch_due_jobs(context)

    assert {job(engine, swept).state, job(engine, ordered).state} == {State.EXPIRED}
    assert slips(library) == []
    assert [notice.message for notice in notices(engine)] == [
        "Slip was not printed in time: reprint it if the item is still here"
    ] * 2


def test_void_job_is_not_dispatched(create_print_job, context, engine, clock, library):
    """The job of an undone Return is neither swept nor sent, and expires without a notice."""
    job_id = create_print_job()
    set_job(engine, job_id, voided_at=clock.now)
    clock.now += timedelta(days=2)

    assert (list(dispatch_due_jobs(context)), print_job(job_id, context, lambda: 0.0)) == ([], None)
    assert notices(engine) == []


@pytest.mark.parametrize("after", list(State))
def test_state_change_updates_jobs_by_the_transitions_only(create_print_job, context, engine, clock, after):
    """The UPDATE to a state changes the jobs whose state may precede it, and no other job."""
    jobs = {before: create_print_job() for before in State}
    for before, job_id in jobs.items():
        set_job(engine, job_id, state=before)
    clock.now += timedelta(seconds=1)

    with engine.begin() as connection:
        connection.execute(state_change(after, clock.now))

    changed = {before for before, job_id in jobs.items() if job(engine, job_id).state_since == clock.now}
    assert changed == {before for before in State if after in TRANSITIONS[before]}
    assert {job(engine, jobs[before]).state for before in changed} <= {after}
    assert all(job(engine, jobs[before]).state is before for before in set(State) - changed)


def test_print_task_returns_the_result(create_print_job, in_worker, library):
    """The task takes its argument as it is on the wire, and returns the result."""
    job_id = create_print_job()
    order = json.loads(PrintSlip(job_id=job_id).model_dump_json())

    assert [print_slip(order), print_slip(order)] == ["done", "nothing_to_do"]
    assert slips(library) == [str(job_id)]


@pytest.mark.parametrize("order", [None, [], {}, {"job_id": "no id"}, {"type": "bookdrop.other.v1"}])
def test_print_task_rejects_malformed_arguments(in_worker, order):
    """Malformed arguments are rejected once, without a retry."""
    assert print_slip(order) == "refused"


def test_sweep_task_enqueues_print_tasks(create_print_job, in_worker, clock, engine):
    """The sweep writes print tasks to the outbox, for the print workers of the job's branch."""
    job_id = create_print_job()
    with engine.begin() as connection:
        connection.execute(delete(OutboxEntry))
    clock.now += REDISPATCH_AFTER

    assert sweep_prints() == 1
    with engine.connect() as connection:
        row = connection.execute(select(OutboxEntry)).one()
    assert (row.queue, row.task) == ("printing.main", "printing.print_slip")
    assert PrintSlip.model_validate_json(row.body).job_id == job_id
