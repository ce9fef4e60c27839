# SPDX-License-Identifier: Apache-2.0
"""One slip to its printer: claimed, rendered, sent, recorded; each step in the database before the next begins."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select, update

from schemas.models import PrintAttempt, PrintJob, table
from schemas.print_jobs import PrintState as State
from schemas.print_jobs import SlipContent
from schemas.storage import READ_ONLY
from tasks.context import Context
from tasks.printing import job as rules
from tasks.printing.claim import Claimed, claim
from tasks.printing.media import MEDIA
from tasks.printing.notices import say_notice
from tasks.printing.pdf import render_pdf, unprintable
from tasks.printing.printers.driver import PrinterError, PrinterInterruptedError, PrinterUnavailableError
from tasks.printing.printers.opening import open_printer
from tasks.unit_of_work import UnitOfWork, run_again_on_conflict

log = structlog.get_logger()


class LeaseLostError(Exception):
    """Another worker has taken this slip over: hands off."""


def print_job(job_id: UUID, here: Context, jitter: Callable[[], float]) -> State | None:
    """Print one slip, and tell its station.

    Gives the state it ended in; `None` when there was nothing to do: another worker has it, or it is done. Never
    raises for a printer: what became of the slip is in the database, and the sweep brings what is due again.
    """
    claimed, promised = run_again_on_conflict(lambda: claim(job_id, here))
    here.publish.publish_outbox(promised)
    if not isinstance(claimed, Claimed):
        return claimed
    try:
        return _print(claimed, here, jitter)
    except LeaseLostError:
        log.warning("slip_left_to_another", job_id=str(job_id), printer=claimed.printer)
        return None


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
        document, lacking = _draw(claimed)
        spool_id = driver.send(document, job_name=claimed.job_name, on_first_byte=before_first_byte)
    except PrinterError as error:
        setback = rules.after_failure(
            byte_may_have_left=isinstance(error, PrinterInterruptedError) and not can_repeat,
            attempts=claimed.attempts,
            jitter=jitter(),
        )
        return _finish(claimed, here, setback.state, why=str(error), wait=setback.wait)
    # A printer that cannot say later what became of the slip has said all it ever will.
    way += [State.ACCEPTED] if driver.knows_its_jobs else [State.ACCEPTED, State.DONE]
    return _finish(claimed, here, *way, spool_id=spool_id, hint=lacking)


def _draw(claimed: Claimed) -> tuple[bytes, str | None]:
    """The slip as a document, and what staff must know of it; one that cannot be drawn waits, and is told."""
    if claimed.media not in MEDIA:
        raise PrinterUnavailableError(f"no slip can be laid out for its medium {claimed.media}")
    try:
        content = SlipContent.model_validate(claimed.content)
        lacking = unprintable(content)
        document = render_pdf(content, claimed.media)
    except Exception as error:
        log.exception("slip_not_drawn", job_id=str(claimed.job_id), error=type(error).__name__)
        raise PrinterUnavailableError(f"the slip could not be drawn ({type(error).__name__})") from error
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
    before = [each for each, following in rules.TRANSITIONS.items() if state in following]
    changed = uow.session.connection().execute(
        update(table(PrintJob))
        .where(
            PrintJob.id == claimed.job_id,
            PrintJob.claimed_by == here.worker,
            PrintJob.attempts == claimed.attempts,
            PrintJob.state.in_(before),
        )
        .values(state=state, state_since=uow.now, **values)
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
) -> State:
    """Record how the try ended (the last state of `way`), and tell the station if that is news."""
    state = way[-1]

    def record() -> UnitOfWork:
        with here.unit_of_work() as uow:
            for each in way:
                _advance(
                    claimed,
                    here,
                    uow,
                    each,
                    last_error=why,
                    next_attempt_at=None if wait is None else uow.now + wait,
                    lease_until=None,
                    spool_id=spool_id,
                )
            uow.session.execute(
                update(PrintAttempt)
                .where(PrintAttempt.id == claimed.attempt_id)
                .values(ended_at=uow.now, outcome=state, error=why)
            )
            if rules.is_news(state, claimed.attempts):
                say_notice(
                    uow,
                    station=claimed.station,
                    event_id=claimed.event_id,
                    job_id=claimed.job_id,
                    state=state,
                    printer=claimed.printer,
                    why=why or hint,
                )
        return uow

    here.publish.publish_outbox(run_again_on_conflict(record).promised)
    log.info("slip_moved", job_id=str(claimed.job_id), printer=claimed.printer, state=state.value, reason=why)
    return state
