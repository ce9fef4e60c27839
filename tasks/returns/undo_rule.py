# SPDX-License-Identifier: Apache-2.0
"""Whether a Return can be taken back, and how much of it. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from schemas.request_status import RequestStatus
from tasks.requests.model import Refused


@dataclass(frozen=True)
class PastReturn:
    """A line of history that says what a Return did."""

    event_id: UUID
    external_id: str
    recorded_at: datetime
    status_before: RequestStatus
    status_after: RequestStatus
    is_latest: bool
    """No other Return of the request came after it that still stands."""
    is_undone: bool


@dataclass(frozen=True)
class Undone:
    """The Return is taken back."""

    status_after: RequestStatus
    in_full: bool
    """Whether the loan and its link to the reader come back too; else the status alone."""


@dataclass(frozen=True)
class AlreadyUndone:
    """Nothing changes: it was taken back before."""


def decide_undo(
    past: PastReturn | None, status: RequestStatus, *, now: datetime, window: timedelta, reason: str | None
) -> Undone | AlreadyUndone | Refused:
    """What an undo of `past` does to a request that is in `status` now. A `window` of zero turns undo off."""
    if past is None:
        return Refused(
            "nothing_to_undo",
            "Not undone: there is no Return to take back",
            "Look at the request's history, and undo the Return that stands there.",
        )
    if past.is_undone:
        return AlreadyUndone()
    refused = _undo_refusal(past, status, window)
    if refused is not None:
        return refused
    in_full = now <= past.recorded_at + window
    if not in_full and not (reason or "").strip():
        minutes = int(window.total_seconds() // 60)
        return Refused(
            "reason_needed",
            f"Not undone: the Return of request {past.external_id} is more than {minutes} minutes old",
            "Undo it with a reason. The status is taken back; the loan stays discharged.",
        )
    return Undone(past.status_before, in_full=in_full)


def _undo_refusal(past: PastReturn, status: RequestStatus, window: timedelta) -> Refused | None:
    """Why this Return is not taken back, whatever its age and the reason."""
    request = f"request {past.external_id}"
    if status is RequestStatus.COMPLETED:
        return Refused(
            "completed",
            f"Not undone: the lender has confirmed {request}, so it has the item back",
            "Ask the lender. A Return is not taken back once it is confirmed.",
        )
    if not past.is_latest or status is not past.status_after:
        return Refused(
            "changed_since",
            f"Not undone: {request} has changed since, and is “{status.label}”",
            "Undo what came later first, or ask interlibrary-loan staff.",
        )
    if not window:
        return Refused(
            "undo_off", "Not undone: undo is turned off in this library", "Ask interlibrary-loan staff to correct it."
        )
    return None
