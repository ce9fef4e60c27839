# SPDX-License-Identifier: Apache-2.0
"""Print slips: claim, render, send, record. Each step is committed before the next one begins."""

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
from tasks.slips.render import render_slip
from tasks.slips.typeface import unprintable
from tasks.unit_of_work import UnitOfWork, retry_on_conflict

log = structlog.get_logger()


LONGEST_RUN: Final = timedelta(seconds=20)
"""After this time at one printer the task dispatches the rest of the line to another task, because of its time limit."""


_SENT: Final = frozenset({State.ACCEPTED, State.DONE})


class LeaseLostError(Exception):
    """Another worker has claimed the job since; this worker must not send the slip."""


class SlipNotRenderedError(PrinterUnavailableError):
    """The slip cannot be rendered. Its printer is not the cause, and the other jobs of the line need not wait."""


def print_job(job_id: UUID, context: Context, jitter: Callable[[], float]) -> State | None:
    """Print one slip and notify its station, after the jobs before it in the line of its printer; then print the rest.

    Returns the state in which the job ended. `None` when there was nothing to do: another worker holds the line and
    continues with the job, the printer is backing off, or the job has ended. Never raises for a printer: the result of
    an attempt is in the database, and the sweep dispatches due jobs again.
    """
    ends = context.now() + LONGEST_RUN
    result: State | None = None
    claimed = _claim(partial(claim, job_id, context), context)
    if isinstance(claimed, State):
        context.emit_task_event(_task_event(claimed), slip=str(job_id))
        return claimed
    while claimed is not None:
        if isinstance(claimed, Claimed):
            printer_id = claimed.printer_id
            state = _attempt(claimed, context, jitter)
            if claimed.job_id == job_id:
                result = state
        if context.now() >= ends:
            _dispatch_rest(printer_id, context)
            break
        claimed = _claim(partial(claim_next, printer_id, context), context)
    return result


def _claim(work: Callable[[], Claim], context: Context) -> Claimed | State | None:
    claimed, pending_messages = retry_on_conflict(work)
    context.publisher.publish_outbox(pending_messages)
    return claimed


def _attempt(claimed: Claimed, context: Context, jitter: Callable[[], float]) -> State | None:
    try:
        state = _print(claimed, context, jitter)
    except LeaseLostError:
        log.warning("print_lease_lost", job_id=str(claimed.job_id), printer=claimed.printer)
        return None
    context.emit_task_event(_task_event(state), slip=str(claimed.job_id), printer=claimed.printer)
    return state


def _task_event(state: State) -> str:
    """The type of the task event for `state`: `slip-held` for example."""
    return f"slip-{state.value.replace('_', '-')}"


def _dispatch_rest(printer_id: int, context: Context) -> None:
    """Dispatch the next job of the printer's line to a separate task."""
    with context.unit_of_work() as uow:
        job = uow.session.scalars(
            select(PrintJob)
            .where(PrintJob.printer_id == printer_id, PrintJob.state.in_(WAITING), PrintJob.voided_at.is_(None))
            .order_by(PrintJob.created_at, PrintJob.id)
            .limit(1)
        ).one_or_none()
        if job is not None:
            enqueue_print_task(job, uow)
    context.publisher.publish_outbox(uow.pending_messages)


def _print(claimed: Claimed, context: Context, jitter: Callable[[], float]) -> State:
    can_repeat = False
    unrecorded = [State.RENDERED, State.SENDING]

    def before_first_byte() -> None:
        # A printer that can repeat needs no record of the sending, only a check: one commit less for every slip.
        if can_repeat:
            _check_lease(claimed, context)
        else:
            _record_steps(claimed, context, unrecorded)
            unrecorded.clear()

    try:
        driver = open_printer(claimed.uri)
        can_repeat = driver.can_repeat
        document, hint = _render(claimed, driver.language)
        context.emit_task_event(_task_event(State.SENDING), slip=str(claimed.job_id), printer=claimed.printer)
        name = claimed.file_name if driver.writes_files else claimed.job_name
        spool_id = driver.send(document, job_name=name, on_first_byte=before_first_byte)
    except PrinterError as error:
        is_printer_failure = not isinstance(error, SlipNotRenderedError)
        attempts = max(claimed.attempts, claimed.printer_failures + 1) if is_printer_failure else claimed.attempts
        outcome = rules.after_failure(
            byte_may_have_left=isinstance(error, PrinterInterruptedError) and not can_repeat,
            attempts=attempts,
            jitter=(drawn_jitter := jitter()),
        )
        backoff = (outcome.wait or rules.retry_delay(attempts, drawn_jitter)) if is_printer_failure else None
        return _finish(claimed, context, outcome.state, reason=str(error), wait=outcome.wait, printer_backoff=backoff)
    # A printer that does not track its jobs will not report more than that it accepted the slip.
    steps = [*unrecorded, State.ACCEPTED] if driver.tracks_jobs else [*unrecorded, State.ACCEPTED, State.DONE]
    return _finish(claimed, context, *steps, spool_id=spool_id, hint=hint)


def _render(claimed: Claimed, language: Literal["pdf", "zpl"]) -> tuple[bytes, str | None]:
    """The slip in the printer's language, and a hint for staff when the slip lacks characters.

    Raises `SlipNotRenderedError` when the slip cannot be rendered, `PrinterUnavailableError` when its printer has a
    medium that is not suitable.
    """
    medium = MEDIA.get(claimed.media)
    if medium is None or (language == "zpl" and not medium.is_label):
        raise PrinterUnavailableError(f"no slip can be laid out for its medium {claimed.media}")
    try:
        content = SlipContent.model_validate(claimed.content)
        lacking = unprintable(content, claimed.media)
        document = render_slip(content, claimed.media, language, job_name=claimed.job_name)
    except Exception as error:
        log.exception("slip_not_rendered", job_id=str(claimed.job_id), error=type(error).__name__)
        raise SlipNotRenderedError(f"the slip could not be drawn ({type(error).__name__})") from error
    return document, f"look at it, letters are lacking in the {' and the '.join(lacking)}" if lacking else None


def _check_lease(claimed: Claimed, context: Context) -> None:
    """Verify that this worker still holds the job. Raises `LeaseLostError`."""
    with context.sessions() as session:
        session.connection(execution_options=READ_ONLY)
        held = session.execute(
            select(PrintJob.id).where(
                PrintJob.id == claimed.job_id,
                PrintJob.claimed_by == context.worker,
                PrintJob.attempts == claimed.attempts,
                PrintJob.state == State.CLAIMED,
            )
        ).one_or_none()
    if held is None:
        raise LeaseLostError(claimed.job_id)


def _record_steps(claimed: Claimed, context: Context, steps: Sequence[State]) -> None:
    """Commit steps of the held job before the next one begins."""
    with context.unit_of_work() as uow:
        for state in steps:
            _advance(claimed, context, uow, state)


def _advance(claimed: Claimed, context: Context, uow: UnitOfWork, state: State, **values: Any) -> None:
    """Change the state of the job. Raises `LeaseLostError` when this worker no longer holds it."""
    changed = uow.session.connection().execute(
        state_change(state, uow.now)
        .where(
            PrintJob.id == claimed.job_id,
            PrintJob.claimed_by == context.worker,
            PrintJob.attempts == claimed.attempts,
        )
        .values(**values)
    )
    if changed.rowcount != 1:
        raise LeaseLostError(claimed.job_id)


def _finish(
    claimed: Claimed,
    context: Context,
    *steps: State,
    reason: str | None = None,
    wait: timedelta | None = None,
    spool_id: str | None = None,
    hint: str | None = None,
    printer_backoff: timedelta | None = None,
) -> State:
    """Record the end of the attempt (the last state of `steps`), and notify the station of a change."""
    state = steps[-1]

    def record() -> UnitOfWork:
        with context.unit_of_work() as uow:
            # After a printer failure the job waits for the printer, like all of its line.
            next_attempt_at = None if wait is None or printer_backoff is not None else uow.now + wait
            if state in RECONCILABLE:
                next_attempt_at = uow.now + rules.FIRST_POLL_DELAY
            for step in steps:
                _advance(
                    claimed, context, uow, step,
                    last_error=reason, next_attempt_at=next_attempt_at, lease_until=None, spool_id=spool_id,
                )  # fmt: skip
            _record_printer(claimed, uow, reason, printer_backoff)
            uow.session.execute(
                update(PrintAttempt)
                .where(PrintAttempt.id == claimed.attempt_id)
                .values(ended_at=uow.now, outcome=state, error=reason)
            )
            if rules.needs_notice(state, claimed.previous_state):
                enqueue_notice(
                    uow,
                    station=claimed.station,
                    event_id=claimed.event_id,
                    job_id=claimed.job_id,
                    state=state,
                    printer=claimed.printer,
                    reason=reason or hint,
                )
        return uow

    context.publisher.publish_outbox(retry_on_conflict(record).pending_messages)
    context.metrics.count(definitions.PRINT_ATTEMPTS, state.value)
    if state in _SENT:
        context.metrics.observe(definitions.RETURN_TO_SLIP, (context.now() - claimed.created_at).total_seconds())
    log.info(
        "print_state_changed", job_id=str(claimed.job_id), printer=claimed.printer, state=state.value, reason=reason
    )
    return state


def _record_printer(claimed: Claimed, uow: UnitOfWork, reason: str | None, backoff: timedelta | None) -> None:
    """Store a failure or a recovery of the printer, so that the next worker does not try an unavailable printer."""
    values: dict[str, Any]
    if backoff is not None:
        values = {"failures": claimed.printer_failures + 1, "retry_at": uow.now + backoff, "trouble": reason}
    elif reason is None and claimed.printer_failures:
        values = {"failures": 0, "retry_at": None, "trouble": None}
    else:
        return
    uow.session.connection().execute(update(table(Printer)).where(Printer.id == claimed.printer_id).values(values))
