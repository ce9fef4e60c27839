# SPDX-License-Identifier: Apache-2.0
"""Events around the Return: receive, loan, discharge, complete, undo; events of slips; and the reply to all of them.

They use the envelope, the signature and the inbox of the Return, and have one type of reply.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, TypeAdapter, model_validator

from schemas import topology
from schemas.events import Message, StationEvent
from schemas.external_text import GivenLine, Line
from schemas.replies import Destination, ItemCount, ReturnReply, StationMessage
from schemas.request_status import RequestStatus

ExternalId = Annotated[str, GivenLine, Field(min_length=1, max_length=100)]
"""A request's external identifier."""
Barcode = Annotated[str, Field(min_length=1, max_length=64)]


class CirculationEvent(StationEvent):
    """Fields of every event in this module."""

    at: AwareDatetime
    """Time of the event, by the station's clock."""


class ReceivedItem(Message):
    """An item from the partner's parcel."""

    barcode: Barcode
    """The lender's own barcode, or that of the strap put on at receipt."""
    temporary: bool = False
    """True if `barcode` is that of a strap, which is used again for other items."""
    other_barcodes: Annotated[tuple[Barcode, ...], Field(max_length=10)] = ()
    """Further barcodes on the same item."""
    description: Annotated[str, GivenLine, Field(max_length=500)] | None = None
    """For example "vol. 2"."""


class ItemsReceived(CirculationEvent):
    """The parcel for a request arrived, and its items have their barcodes."""

    type: Literal["bookdrop.items-received.v1"] = "bookdrop.items-received.v1"
    request: ExternalId
    items: Annotated[tuple[ReceivedItem, ...], Field(min_length=1, max_length=50)]
    for_loan: bool = True
    """False when the lender allows use in the library only."""
    return_address: Annotated[
        tuple[Annotated[str, GivenLine, Field(min_length=1, max_length=200)], ...], Field(max_length=7)
    ] = ()
    """Address to return this item to, if not the partner's; the first line is the name."""


class ItemLoaned(CirculationEvent):
    """The item was lent to the patron of its request. The event does not name the patron; the request does."""

    type: Literal["bookdrop.item-loaned.v1"] = "bookdrop.item-loaned.v1"
    barcode: Barcode
    due_at: AwareDatetime | None = None


class LoanDischarged(CirculationEvent):
    """The patron returned the item, and it stays in the library for now: "Returned by patron"."""

    type: Literal["bookdrop.loan-discharged.v1"] = "bookdrop.loan-discharged.v1"
    barcode: Barcode
    returned_at: AwareDatetime | None = None
    """Time at which the item came back, if earlier than the event."""


class RequestCompleted(CirculationEvent):
    """The partner confirmed that it has received its items."""

    type: Literal["bookdrop.request-completed.v1"] = "bookdrop.request-completed.v1"
    request: ExternalId


class UndoRequested(CirculationEvent):
    """Staff undo a Return that was made by mistake. The event names the Return's event id or its request."""

    type: Literal["bookdrop.undo-requested.v1"] = "bookdrop.undo-requested.v1"
    undoes: UUID | None = None
    """Event id of the Return to undo."""
    request: ExternalId | None = None
    """Request whose last Return to undo."""
    reason: Annotated[str, GivenLine, Field(max_length=500)] | None = None
    """Required after the undo window."""

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.undoes is None) == (self.request is None):
            raise ValueError("name the event or the request, and not both")
        return self


class SlipSeen(CirculationEvent):
    """At packing staff scanned the slip's code and the item that the slip is in."""

    type: Literal["bookdrop.slip-seen.v1"] = "bookdrop.slip-seen.v1"
    slip: UUID
    """The id in the slip's code. From a typed short form, its last 12 digits after 20 zeros."""
    barcode: Barcode
    """A barcode of the item that the slip is in."""


class ReprintRequested(CirculationEvent):
    """Staff request a copy of a Return's slip, for example because the slip is lost. It is marked as a copy."""

    type: Literal["bookdrop.reprint-requested.v1"] = "bookdrop.reprint-requested.v1"
    reprints: UUID
    """Event id of the Return that printed the slip."""
    reason: Annotated[str, GivenLine, Field(min_length=1, max_length=500)]


TASKS: Final[Mapping[type[CirculationEvent], str]] = {
    UndoRequested: topology.PROCESS_UNDO,
    ItemsReceived: topology.RECEIVE_ITEMS,
    ItemLoaned: topology.LOAN_ITEM,
    LoanDischarged: topology.DISCHARGE_LOAN,
    RequestCompleted: topology.COMPLETE_REQUEST,
    SlipSeen: topology.CONFIRM_SLIP,
    ReprintRequested: topology.ASK_REPRINT,
}
"""The task for each event; the event is its argument."""


class ActionOutcome(StrEnum):
    """Outcome of an event of this module."""

    DONE = "done"
    ALREADY_DONE = "already_done"
    REFUSED = "refused"


class ActionReply(StationMessage):
    """The reply to one event of this module; a resent event gets the same bytes."""

    type: Literal["bookdrop.action-reply.v1"] = "bookdrop.action-reply.v1"
    event_id: UUID
    outcome: ActionOutcome
    reason: str
    """Reason code, for example `received` or `no_reader`: stable, for programs."""
    message: Line
    """Text for the screen."""
    next_step: Line | None = None
    """Next step for staff; every refusal has one."""
    barcode: Line | None = None
    title: Line | None = None
    request: Line | None = None
    """The request's external identifier."""
    destination: Destination | None = None
    status_before: RequestStatus | None = None
    status_after: RequestStatus | None = None
    items: ItemCount | None = None
    """Count of the items, when the request has several."""
    warnings: tuple[Line, ...] = ()


Reply = ReturnReply | ActionReply
"""The reply to an event of any type."""

_REPLY: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="type")])


def read_reply(text: str | bytes) -> Reply:
    """Parse a reply from its JSON. Raises `ValueError` for any other text."""
    return _REPLY.validate_json(text)
