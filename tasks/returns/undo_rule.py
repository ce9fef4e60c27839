# SPDX-License-Identifier: Apache-2.0
"""The rule of undo: from a past Return and the request's status to a decision. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from schemas.reasons import ReplyReason
from schemas.request_status import RequestStatus
from tasks.requests.model import Refused


@dataclass(frozen=True)
class PastReturn:
    """A Return as its line of history records it."""

    event_id: UUID
    external_id: str
    recorded_at: datetime
    status_before: RequestStatus
    status_after: RequestStatus
    is_latest: bool
    """No later Return of the request is in effect."""
    is_undone: bool
    is_elsewhere: bool = False
    """The library permits an undo at the Return's own branch only, and the station belongs to another one."""


@dataclass(frozen=True)
class Undone:
    """The Return is undone."""

    status_after: RequestStatus
    in_full: bool
    """The loan and its patron link are restored too; otherwise the status alone."""


@dataclass(frozen=True)
class AlreadyUndone:
    """Nothing changes: the Return was undone before."""


def decide_undo(
    past: PastReturn | None, status: RequestStatus, *, now: datetime, window: timedelta, reason: str | None
) -> Undone | AlreadyUndone | Refused:
    """The decision on an undo of `past`, for a request in `status`. A `window` of zero turns undo off."""
    if past is None:
        return Refused(
            ReplyReason.NOTHING_TO_UNDO,
            "Not undone: there is no Return to undo",
            "Look at the request's history, and undo the Return that stands there.",
        )
    if past.is_undone:
        return AlreadyUndone()
    if past.is_elsewhere:
        return Refused(
            ReplyReason.OTHER_BRANCH,
            f"Not undone: the Return of request {past.external_id} took place at another branch",
            "Undo it at a station of that branch.",
        )
    refused = _undo_refusal(past, status, window)
    if refused is not None:
        return refused
    in_full = now <= past.recorded_at + window
    if not in_full and not (reason or "").strip():
        minutes = int(window.total_seconds() // 60)
        return Refused(
            ReplyReason.REASON_NEEDED,
            f"Not undone: the Return of request {past.external_id} is more than {minutes} minutes old",
            "Undo it with a reason. The status is taken back; the loan stays discharged.",
        )
    return Undone(past.status_before, in_full=in_full)


def _undo_refusal(past: PastReturn, status: RequestStatus, window: timedelta) -> Refused | None:
    """The refusal of an undo that no reason can change."""
    request = f"request {past.external_id}"
    if status is RequestStatus.COMPLETED:
        return Refused(
            ReplyReason.COMPLETED,
            f"Not undone: the lender has confirmed {request}, so it has the item back",
            "Ask the lender. A Return is not taken back once it is confirmed.",
        )
    if not past.is_latest or status is not past.status_after:
        return Refused(
            ReplyReason.CHANGED_SINCE,
            f"Not undone: {request} has changed since, and is “{status.label}”",
            "Undo what came later first, or ask interlibrary-loan staff.",
        )
    if not window:
        return Refused(
            ReplyReason.UNDO_OFF,
            "Not undone: undo is turned off in this library",
            "Ask interlibrary-loan staff to correct it.",
        )
    return None
