# SPDX-License-Identifier: Apache-2.0
"""One slip to its printer: claimed, rendered, sent, recorded; each step in the database before the next begins."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal
from uuid import UUID

import structlog
from sqlalchemy import select, update

from schemas.database import READ_ONLY
from schemas.models import PrintAttempt, Printer, PrintJob, table
from schemas.print_jobs import RECONCILABLE, WAITING, SlipContent
from schemas.print_jobs import PrintState as State
from tasks.context import Context
from tasks.metrics import definitions
from tasks.print_jobs import enqueue_print_task, state_change
from tasks.printing import state_machine as rules
from tasks.printing.claim import Claim, Claimed, claim, claim_next
from tasks.printing.notifications import enqueue_notice
from tasks.printing.printers.driver import PrinterError, PrinterInterruptedError, PrinterUnavailableError
from tasks.printing.printers.factory import open_printer
from tasks.slips.media import MEDIA
from tasks.slips.pdf import unprintable
from tasks.slips.render import draw
from tasks.unit_of_work import UnitOfWork, retry_on_conflict

log = structlog.get_logger()


LONGEST_SHIFT: Final = timedelta(seconds=20)
"""After so long at one printer the rest of its line is ordered anew: its task has a time limit."""


_TAKEN: Final = frozenset({State.ACCEPTED, State.DONE})


class LeaseLostError(Exception):
    """Another worker has taken this slip over: hands off."""


class SlipNotDrawnError(PrinterUnavailableError):
    """The slip itself cannot be drawn; its printer is not to blame, and the others of its line need not wait."""


def print_job(job_id: UUID, here: Context, jitter: Callable[[], float]) -> State | None:
    """Print one slip and tell its station; before it what stands in the line of its printer, after it the rest.

    Gives the state it ended in; `None` when there was nothing to do: another worker is at its printer and will go on
    with it, the printer is away, or it is done. Never raises for a printer: what became of the slip is in the
    database, and the sweep brings what is due again.
    """
    ends = here.now() + LONGEST_SHIFT
    asked: State | None = None
    claimed = _promised(partial(claim, job_id, here), here)
    if isinstance(claimed, State):
        here.emit_task_event(_announced(claimed), slip=str(job_id))
        return claimed
    while claimed is not None:
        if isinstance(claimed, Claimed):
            printer_id = claimed.printer_id
            state = _try(claimed, here, jitter)
            if claimed.job_id == job_id:
                asked = state
        if here.now() >= ends:
            _order_rest(printer_id, here)
            break
        claimed = _promised(partial(claim_next, printer_id, here), here)
    return asked


def _promised(take: Callable[[], Claim], here: Context) -> Claimed | State | None:
    claimed, pending_messages = retry_on_conflict(take)
    here.publisher.publish_outbox(pending_messages)
    return claimed


def _try(claimed: Claimed, here: Context, jitter: Callable[[], float]) -> State | None:
    try:
        state = _print(claimed, here, jitter)
    except LeaseLostError:
        log.warning("print_lease_lost", job_id=str(claimed.job_id), printer=claimed.printer)
        return None
    here.emit_task_event(_announced(state), slip=str(claimed.job_id), printer=claimed.printer)
    return state


def _announced(state: State) -> str:
    """What is said of a slip that has come to `state`, such as `slip-held`."""
    return f"slip-{state.value.replace('_', '-')}"


def _order_rest(printer_id: int, here: Context) -> None:
    """Have the line of the printer gone on with, in a task of its own."""
    with here.unit_of_work() as uow:
        job = uow.session.scalars(
            select(PrintJob)
            .where(PrintJob.printer_id == printer_id, PrintJob.state.in_(WAITING), PrintJob.voided_at.is_(None))
            .order_by(PrintJob.created_at, PrintJob.id)
            .limit(1)
        ).one_or_none()
        if job is not None:
            enqueue_print_task(job, uow)
    here.publisher.publish_outbox(uow.pending_messages)


def _print(claimed: Claimed, here: Context, jitter: Callable[[], float]) -> State:
    can_repeat = False
    way = [State.RENDERED, State.SENDING]  # what is done and not in the database yet

    def before_first_byte() -> None:
        # What can be sent again needs no record of the sending, only a look: one commit less for every slip.
        if can_repeat:
            _check_hold(claimed, here)
        else:
            _steps(claimed, here, way)
            way.clear()

    try:
        driver = open_printer(claimed.uri)
        can_repeat = driver.can_repeat
        document, lacking = _draw(claimed, driver.language)
        here.emit_task_event(_announced(State.SENDING), slip=str(claimed.job_id), printer=claimed.printer)
        spool_id = driver.send(document, job_name=claimed.job_name, on_first_byte=before_first_byte)
    except PrinterError as error:
        is_its_fault = not isinstance(error, SlipNotDrawnError)
        tries = max(claimed.attempts, claimed.printer_failures + 1) if is_its_fault else claimed.attempts
        setback = rules.after_failure(
            byte_may_have_left=isinstance(error, PrinterInterruptedError) and not can_repeat,
            attempts=tries,
            jitter=(dice := jitter()),
        )
        closed = (setback.wait or rules.retry_delay(tries, dice)) if is_its_fault else None
        return _finish(claimed, here, setback.state, why=str(error), wait=setback.wait, closed=closed)
    # A printer that cannot say later what became of the slip has said all it ever will.
    way += [State.ACCEPTED] if driver.knows_its_jobs else [State.ACCEPTED, State.DONE]
    return _finish(claimed, here, *way, spool_id=spool_id, hint=lacking)


def _draw(claimed: Claimed, language: Literal["pdf", "zpl"]) -> tuple[bytes, str | None]:
    """The slip as its printer takes it, and what staff must know of it; one that cannot be drawn waits, and is told."""
    medium = MEDIA.get(claimed.media)
    if medium is None or (language == "zpl" and not medium.is_label):
        raise PrinterUnavailableError(f"no slip can be laid out for its medium {claimed.media}")
    try:
        content = SlipContent.model_validate(claimed.content)
        lacking = unprintable(content, claimed.media)
        document = draw(content, claimed.media, language, job_name=claimed.job_name)
    except Exception as error:
        log.exception("slip_not_drawn", job_id=str(claimed.job_id), error=type(error).__name__)
        raise SlipNotDrawnError(f"the slip could not be drawn ({type(error).__name__})") from error
    return document, f"look at it, letters are lacking in the {' and the '.join(lacking)}" if lacking else None


def _check_hold(claimed: Claimed, here: Context) -> None:
    """Look whether the job is still ours. Raises `LeaseLostError`."""
    with here.sessions() as session:
        session.connection(execution_options=READ_ONLY)
        found = session.execute(
            select(PrintJob.id).where(
                PrintJob.id == claimed.job_id,
                PrintJob.claimed_by == here.worker,
                PrintJob.attempts == claimed.attempts,
                PrintJob.state == State.CLAIMED,
            )
        ).one_or_none()
    if found is None:
        raise LeaseLostError(claimed.job_id)


def _steps(claimed: Claimed, here: Context, way: Sequence[State]) -> None:
    """Record steps of the job that we hold, committed before the next one begins."""
    with here.unit_of_work() as uow:
        for state in way:
            _advance(claimed, here, uow, state)


def _advance(claimed: Claimed, here: Context, uow: UnitOfWork, state: State, **values: Any) -> None:
    """Move the job on, if it is still in our hand."""
    changed = uow.session.connection().execute(
        state_change(state, uow.now)
        .where(
            PrintJob.id == claimed.job_id,
            PrintJob.claimed_by == here.worker,
            PrintJob.attempts == claimed.attempts,
        )
        .values(**values)
    )
    if changed.rowcount != 1:
        raise LeaseLostError(claimed.job_id)


def _finish(
    claimed: Claimed,
    here: Context,
    *way: State,
    why: str | None = None,
    wait: timedelta | None = None,
    spool_id: str | None = None,
    hint: str | None = None,
    closed: timedelta | None = None,
) -> State:
    """Record how the try ended (the last state of `way`), and tell the station if that is news."""
    state = way[-1]

    def record() -> UnitOfWork:
        with here.unit_of_work() as uow:
            # A slip whose printer is to blame waits for the printer, like all of its line.
            again = None if wait is None or closed is not None else uow.now + wait
            if state in RECONCILABLE:
                again = uow.now + rules.FIRST_LOOK
            for each in way:
                _advance(
                    claimed, here, uow, each,
                    last_error=why, next_attempt_at=again, lease_until=None, spool_id=spool_id,
                )  # fmt: skip
            _note_of_printer(claimed, uow, why, closed)
            uow.session.execute(
                update(PrintAttempt)
                .where(PrintAttempt.id == claimed.attempt_id)
                .values(ended_at=uow.now, outcome=state, error=why)
            )
            if rules.is_news(state, claimed.before):
                enqueue_notice(
                    uow,
                    station=claimed.station,
                    event_id=claimed.event_id,
                    job_id=claimed.job_id,
                    state=state,
                    printer=claimed.printer,
                    why=why or hint,
                )
        return uow

    here.publisher.publish_outbox(retry_on_conflict(record).pending_messages)
    here.metrics.count(definitions.PRINT_ATTEMPTS, state.value)
    if state in _TAKEN:
        here.metrics.observe(definitions.RETURN_TO_SLIP, (here.now() - claimed.created_at).total_seconds())
    log.info("print_state_changed", job_id=str(claimed.job_id), printer=claimed.printer, state=state.value, reason=why)
    return state


def _note_of_printer(claimed: Claimed, uow: UnitOfWork, why: str | None, closed: timedelta | None) -> None:
    """Keep what the try says of the printer: whoever comes next need not find out anew that it is away."""
    values: dict[str, Any]
    if closed is not None:
        values = {"failures": claimed.printer_failures + 1, "retry_at": uow.now + closed, "trouble": why}
    elif why is None and claimed.printer_failures:
        values = {"failures": 0, "retry_at": None, "trouble": None}
    else:
        return
    uow.session.connection().execute(update(table(Printer)).where(Printer.id == claimed.printer_id).values(values))
