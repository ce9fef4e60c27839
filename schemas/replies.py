# SPDX-License-Identifier: Apache-2.0
"""Messages to stations: the reply to a Return event, and the notice about its slip."""

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from schemas.events import Code, Message
from schemas.external_text import Line
from schemas.request_status import RequestStatus

Signature = Annotated[str, Field(min_length=64, max_length=64)]
"""64 hexadecimal digits."""


class Outcome(StrEnum):
    """Outcome of a scan. The station shows each in a separate colour, with a separate tone."""

    RETURNED = "returned"
    ALREADY_RETURNED = "already_returned"
    REFUSED = "refused"


class Destination(Message):
    """The lending library to which the item is returned."""

    name: Line
    code: Line
    """The partner's code, for example its ISIL."""
    delivery_code: Line | None = None
    """The courier's sort code; `None` when the partner has none."""


class ItemCount(Message):
    """Count of the request's items that are here, for example 1 of 3."""

    here: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=1)]


class RequestChoice(Message):
    """One of several requests with the scanned barcode; staff pick one."""

    external_id: Line
    title: Line
    status: RequestStatus
    destination: Destination


class StationMessage(Message):
    """Fields of every message to a station that make it verifiable (`schemas.reply_signature`)."""

    station: Code | None = None
    """The station that the message is for; a signed message has one."""
    signature: Signature | None = None
    """HMAC-SHA256 over the canonical JSON of all fields but the signatures, with the key that signed the event."""
    second_signature: Signature | None = None
    """The same with the station's other key, while the rotation of its key overlaps."""


class ReturnReply(StationMessage):
    """The reply to one Return event; a resent event gets the same bytes."""

    type: Literal["bookdrop.return-reply.v1"] = "bookdrop.return-reply.v1"
    event_id: UUID
    outcome: Outcome
    reason: str
    """Reason code, for example `loaned` or `unknown_barcode`: stable, for programs."""
    message: Line
    """Text for the screen, for example "The item's destination is Riverside University Library"."""
    next_step: Line | None = None
    """Next step for staff; every refusal has one."""
    barcode: Line | None = None
    title: Line | None = None
    destination: Destination | None = None
    request: Line | None = None
    """The request's external identifier."""
    status_before: RequestStatus | None = None
    status_after: RequestStatus | None = None
    discharged: bool = False
    """True if this event discharged a loan."""
    slip: UUID | None = None
    """Id of the print job, if the Return has one to wait for or to reprint."""
    items: ItemCount | None = None
    """Count of the items, when the request has several."""
    urgent: bool = False
    warnings: tuple[Line, ...] = ()
    choices: tuple[RequestChoice, ...] = ()
    returned_at: AwareDatetime | None = None
    """Time of the Return; for `already_returned`, of the first one."""
    returned_by: Line | None = None
    """Station of that Return."""


class SlipNotice(StationMessage):
    """The result of a print job; follows the reply on the same channel."""

    type: Literal["bookdrop.slip-notice.v1"] = "bookdrop.slip-notice.v1"
    event_id: UUID
    """Event id of the Return that prints the slip."""
    job_id: UUID
    state: Line
    """State of the print job (see `schemas.print_jobs.PrintState`)."""
    message: Line
    """Text for the screen, for example "Slip sent to the printer main-slips"."""
    at: AwareDatetime
