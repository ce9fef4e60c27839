# SPDX-License-Identifier: Apache-2.0
"""The time at which a loan is discharged: the backdate, the time of the scan, or the worker's time. Pure."""

from datetime import datetime

from schemas.reasons import ReplyReason
from tasks.requests.model import CLOCK_TOLERANCE, Refused


def discharge_time(
    *,
    occurred_at: datetime,
    received_at: datetime,
    backdate: datetime | None,
    loan_began: datetime | None,
    action: str = "Not returned",
) -> tuple[datetime, tuple[str, ...]] | Refused:
    """The discharge's time, with warnings for staff; or the refusal of a backdate. All times are aware UTC.

    `occurred_at` is by the station's clock, `received_at` by the worker's. A backdate in the future or before the loan
    began is refused. A station's time before the loan began, or ahead of the worker by more than `CLOCK_TOLERANCE`, is
    replaced by the worker's. `action` begins the refusal's message.
    """
    if backdate is not None:
        if backdate > received_at:
            return _refused(ReplyReason.BACKDATE_IN_FUTURE, f"{action}: the backdate lies in the future")
        if loan_began is not None and backdate < loan_began:
            return _refused(ReplyReason.BACKDATE_BEFORE_LOAN, f"{action}: the backdate lies before the loan began")
        return backdate, ()
    if occurred_at > received_at + CLOCK_TOLERANCE or (loan_began is not None and occurred_at < loan_began):
        return received_at, ("The station's clock is wrong: the time of the server was used.",)
    return occurred_at, ()


def _refused(reason: ReplyReason, message: str) -> Refused:
    return Refused(reason, message, "Correct the date, then scan again.")
