# SPDX-License-Identifier: Apache-2.0
"""When a loan ends: the scan's own time or the backdate, never the worker's unless a clock is wrong. Pure."""

from datetime import datetime

from tasks.requests.model import CLOCK_TOLERANCE, Refused
from tasks.returns.decision import ReturnCommand


def end_of_loan(wish: ReturnCommand, began: datetime | None) -> tuple[datetime, tuple[str, ...]] | Refused:
    """The backdate, or the scan's own time, or the worker's when that cannot be believed; with warnings for staff.

    `began`: when the loan began, if there is one. A backdate in the future or before the loan is refused.
    """
    backdate = wish.backdated_to
    if backdate is not None:
        if backdate > wish.received_at:
            return Refused(
                "backdate_in_future",
                "Not returned: the backdate lies in the future",
                "Correct the date, then scan again.",
            )
        if began is not None and backdate < began:
            return Refused(
                "backdate_before_loan",
                "Not returned: the backdate lies before the loan began",
                "Correct the date, then scan again.",
            )
        return backdate, ()
    at = wish.occurred_at
    if at > wish.received_at + CLOCK_TOLERANCE or (began is not None and at < began):
        return wish.received_at, ("The station's clock is wrong: the time of the server was used.",)
    return at, ()
