# SPDX-License-Identifier: Apache-2.0
"""Where the Return and the printing meet: the order to print, the slip's content, the states of a job."""

from datetime import date
from enum import StrEnum
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import Field

from schemas.barcodes import SLIP_PREFIX
from schemas.events import Message


class PrintState(StrEnum):
    """State of a print job. See docs/explanation for the way through them."""

    REQUESTED = "requested"
    CLAIMED = "claimed"
    RENDERED = "rendered"
    SENDING = "sending"
    ACCEPTED = "accepted"
    DONE = "done"
    CONFIRMED = "confirmed"
    HELD = "held"
    FAILED_SAFE = "failed_safe"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class PrintSlip(Message):
    """The order to print one slip: an id and nothing that could name a reader."""

    type: Literal["bookdrop.print-slip.v1"] = "bookdrop.print-slip.v1"
    job_id: UUID


class Address(Message):
    """A postal address as printed: a name and up to six lines."""

    name: Annotated[str, Field(max_length=200)]
    lines: Annotated[tuple[str, ...], Field(max_length=6)] = ()


class SlipContent(Message):
    """All that stands on a lending slip. It has no field for a reader, on purpose."""

    job_id: UUID
    """The slip's own code, printed as QR."""
    delivery_code: str | None
    """The lender's courier code, the largest thing on the slip."""
    return_to: Address
    sent_from: Address
    """Our library, and the branch as its first line."""
    title: str
    author: str | None = None
    external_id: str
    barcode: str
    """The item's barcode, printed as Code 128."""
    returned_on: date
    copy_number: Annotated[int, Field(ge=1)] = 1
    """From 2 on the slip says COPY n."""
    urgent: bool = False
    item_of: tuple[int, int] | None = None
    """Such as (1, 3) for the first of three items."""
    damage_note: str | None = None

    @property
    def code(self) -> str:
        """What the slip's QR code says: scanned at packing, it names the job."""
        return f"{SLIP_PREFIX}{self.job_id}"


WAITING: Final = frozenset({PrintState.REQUESTED, PrintState.FAILED_SAFE, PrintState.HELD})
"""Nobody has the job; it is taken when it is due."""

IN_HAND: Final = frozenset({PrintState.CLAIMED, PrintState.RENDERED, PrintState.SENDING})
"""A worker has the job, for as long as its lease."""

RECONCILABLE: Final = frozenset({PrintState.ACCEPTED, PrintState.UNKNOWN})
"""Its printer is asked what became of it, if it is one that knows."""
