# SPDX-License-Identifier: Apache-2.0
"""What stations say of the cycle around the Return: receive, loan, discharge, complete, undo; of slips; and what they hear.

The same envelope, signature and inbox as the Return's; one answer type for all of them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, TypeAdapter, model_validator

from schemas import topology
from schemas.events import Message, StationEvent
from schemas.replies import Destination, ItemCount, ReturnReply
from schemas.request_status import RequestStatus

ExternalId = Annotated[str, Field(min_length=1, max_length=100)]
"""A request's external identifier."""
Barcode = Annotated[str, Field(min_length=1, max_length=64)]


class CycleEvent(StationEvent):
    """Common to the cycle's events."""

    at: AwareDatetime
    """When it happened, by the station's clock."""


class ReceivedItem(Message):
    """A thing that came out of the parcel."""

    barcode: Barcode
    """The lender's own barcode, or the one of the strap that was put on."""
    temporary: bool = False
    """Whether `barcode` is a strap's and will be used again for other items."""
    other_barcodes: Annotated[tuple[Barcode, ...], Field(max_length=10)] = ()
    """Further barcodes on the same thing."""
    description: Annotated[str, Field(max_length=500)] | None = None
    """Such as "vol. 2"."""


class ItemsReceived(CycleEvent):
    """The parcel for a request came, and its items got their barcodes."""

    type: Literal["bookdrop.items-received.v1"] = "bookdrop.items-received.v1"
    request: ExternalId
    items: Annotated[tuple[ReceivedItem, ...], Field(min_length=1, max_length=50)]
    for_loan: bool = True
    """False when the lender allows reading in the library only."""
    return_address: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=7)] = ()
    """Where this very item goes back to, if not to the partner's address; the first line is the name."""


class ItemLoaned(CycleEvent):
    """The item was handed to the reader of its request. Names nobody: the request knows its reader."""

    type: Literal["bookdrop.item-loaned.v1"] = "bookdrop.item-loaned.v1"
    barcode: Barcode
    due_at: AwareDatetime | None = None


class LoanDischarged(CycleEvent):
    """The reader brought the item back, and it stays on our shelf for now: "Returned by patron"."""

    type: Literal["bookdrop.loan-discharged.v1"] = "bookdrop.loan-discharged.v1"
    barcode: Barcode
    returned_at: AwareDatetime | None = None
    """When the item really came back, if not now."""


class RequestCompleted(CycleEvent):
    """The partner confirmed that it has its items back."""

    type: Literal["bookdrop.request-completed.v1"] = "bookdrop.request-completed.v1"
    request: ExternalId


class UndoRequested(CycleEvent):
    """A Return was made by mistake and is to be taken back. Names the Return's event, or the request it was of."""

    type: Literal["bookdrop.undo-requested.v1"] = "bookdrop.undo-requested.v1"
    undoes: UUID | None = None
    """The event whose Return is meant."""
    request: ExternalId | None = None
    """The request whose last Return is meant."""
    reason: Annotated[str, Field(max_length=500)] | None = None
    """Needed once the undo window is over."""

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.undoes is None) == (self.request is None):
            raise ValueError("name the event or the request, and not both")
        return self


class SlipSeen(CycleEvent):
    """At packing the slip's own code was scanned, and the item that it lies in."""

    type: Literal["bookdrop.slip-seen.v1"] = "bookdrop.slip-seen.v1"
    slip: UUID
    """What the slip's code says after `BD:`."""
    barcode: Barcode
    """A barcode of the item that the slip lies in."""


class ReprintRequested(CycleEvent):
    """The slip of a Return is not to be had: staff want another one, which says that it is a copy."""

    type: Literal["bookdrop.reprint-requested.v1"] = "bookdrop.reprint-requested.v1"
    reprints: UUID
    """The event whose Return wanted the slip."""
    reason: Annotated[str, Field(min_length=1, max_length=500)]


TASKS: Final[Mapping[type[CycleEvent], str]] = {
    UndoRequested: topology.PROCESS_UNDO,
    ItemsReceived: topology.RECEIVE_ITEMS,
    ItemLoaned: topology.LOAN_ITEM,
    LoanDischarged: topology.DISCHARGE_LOAN,
    RequestCompleted: topology.COMPLETE_REQUEST,
    SlipSeen: topology.CONFIRM_SLIP,
    ReprintRequested: topology.ASK_REPRINT,
}
"""The task that each event of the cycle is the argument of."""


class ActionOutcome(StrEnum):
    """The three answers to an event of the cycle."""

    DONE = "done"
    ALREADY_DONE = "already_done"
    REFUSED = "refused"


class ActionReply(Message):
    """The answer to one event of the cycle; the same bytes however often it is asked for."""

    type: Literal["bookdrop.action-reply.v1"] = "bookdrop.action-reply.v1"
    event_id: UUID
    outcome: ActionOutcome
    reason: str
    """Reason code, such as `received`, `no_reader`: stable, for programs."""
    message: str
    """The words for the screen."""
    next_step: str | None = None
    """What staff do now; always given with a refusal."""
    barcode: str | None = None
    title: str | None = None
    request: str | None = None
    """The request's external identifier."""
    destination: Destination | None = None
    status_before: RequestStatus | None = None
    status_after: RequestStatus | None = None
    items: ItemCount | None = None
    """How many of the request's items are meant, when it has several."""
    warnings: tuple[str, ...] = ()


Reply = ReturnReply | ActionReply
"""The answer to an event of whatever kind."""

_REPLY: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="type")])


def read_reply(text: str | bytes) -> Reply:
    """Read an answer from its JSON. Raises `ValueError` when it is none."""
    return _REPLY.validate_json(text)
