# SPDX-License-Identifier: Apache-2.0
"""What stations hear: the answer to an event, and what became of its slip."""

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from schemas.events import Message
from schemas.request_status import RequestStatus


class Outcome(StrEnum):
    """The three answers to a scan; each has its colour and tone at the desk."""

    RETURNED = "returned"
    ALREADY_RETURNED = "already_returned"
    REFUSED = "refused"


class Destination(Message):
    """The lending library the item goes home to."""

    name: str
    code: str
    """The partner's own code (such as its ISIL)."""
    delivery_code: str | None = None
    """The courier's sort code; `None` when the partner has none."""


class ItemCount(Message):
    """How many of the request's items are here: "1 of 3"."""

    here: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=1)]


class RequestChoice(Message):
    """One of several requests that a barcode could mean; staff pick one."""

    external_id: str
    title: str
    status: RequestStatus
    destination: Destination


class ReturnReply(Message):
    """The answer to one event; the same bytes however often it is asked for."""

    type: Literal["bookdrop.return-reply.v1"] = "bookdrop.return-reply.v1"
    event_id: UUID
    outcome: Outcome
    reason: str
    """Reason code, such as `loaned`, `unknown_barcode`: stable, for programs."""
    message: str
    """The words for the screen, such as "The item's destination is Riverside University Library"."""
    next_step: str | None = None
    """What staff do now; always given with a refusal."""
    barcode: str | None = None
    title: str | None = None
    destination: Destination | None = None
    request: str | None = None
    """The request's external identifier."""
    status_before: RequestStatus | None = None
    status_after: RequestStatus | None = None
    discharged: bool = False
    """Whether this event discharged a loan."""
    slip: UUID | None = None
    """Id of the print job, when there is one to wait for or to reprint."""
    items: ItemCount | None = None
    """Given when the request has several items."""
    urgent: bool = False
    warnings: tuple[str, ...] = ()
    choices: tuple[RequestChoice, ...] = ()
    returned_at: AwareDatetime | None = None
    """When the item was returned (for `already_returned`: the first time)."""
    returned_by: str | None = None
    """Station of that Return."""


class SlipNotice(Message):
    """What became of a slip; follows the reply on the same channel."""

    type: Literal["bookdrop.slip-notice.v1"] = "bookdrop.slip-notice.v1"
    event_id: UUID
    """The event whose Return wants the slip."""
    job_id: UUID
    state: str
    """State of the print job (see `schemas.print_jobs.PrintState`)."""
    message: str
    """The words for the screen, such as "Slip sent to the printer main-slips"."""
    at: AwareDatetime
