# SPDX-License-Identifier: Apache-2.0
"""The print job as the Return and the print queue share it: print task, slip content, states and transitions."""

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import Field

from schemas.events import Message
from schemas.slip_codes import slip_code


class PrintState(StrEnum):
    """State of a print job. `docs/reference/print-jobs.md` has the diagram."""

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
    """The argument of a print task: the id of the job. No field can hold a patron's data."""

    type: Literal["bookdrop.print-slip.v1"] = "bookdrop.print-slip.v1"
    job_id: UUID


class Address(Message):
    """A postal address as printed: a name and up to six lines."""

    name: Annotated[str, Field(max_length=200)]
    lines: Annotated[tuple[str, ...], Field(max_length=6)] = ()


class SlipContent(Message):
    """The text and codes of a lending slip. It has no field for a patron, on purpose."""

    job_id: UUID
    """Printed as a QR code, see `code`."""
    delivery_code: str | None
    """The lender's courier code, the largest thing on the slip."""
    return_to: Address
    sent_from: Address
    """Our library, and the branch as its first line."""
    sent_from_code: str | None = None
    """Our branch's own courier code, beside FROM."""
    title: str
    author: str | None = None
    external_id: str
    barcode: str
    """The item's barcode, printed as Code 128."""
    returned_on: date
    copy_number: Annotated[int, Field(ge=1)] = 1
    """From 2 on, the slip shows COPY n."""
    urgent: bool = False
    item_of: tuple[int, int] | None = None
    """Position and count: (1, 3) is the first of three items."""
    damage_note: str | None = None

    @property
    def code(self) -> str:
        """The content of the slip's QR code. A scan at packing identifies the job by it."""
        return slip_code(self.job_id)


WAITING: Final = frozenset({PrintState.REQUESTED, PrintState.FAILED_SAFE, PrintState.HELD})
"""No worker has claimed the job, and no byte of the slip has left. A worker claims it when it is due."""

IN_HAND: Final = frozenset({PrintState.CLAIMED, PrintState.RENDERED, PrintState.SENDING})
"""A worker holds the job until its lease ends."""

RECONCILABLE: Final = frozenset({PrintState.ACCEPTED, PrintState.UNKNOWN})
"""A printer that tracks its jobs is polled for the result."""

TRANSITIONS: Final[Mapping[PrintState, frozenset[PrintState]]] = MappingProxyType(
    {
        PrintState.REQUESTED: frozenset(
            {PrintState.CLAIMED, PrintState.HELD, PrintState.EXPIRED, PrintState.CANCELLED}
        ),
        PrintState.CLAIMED: frozenset(
            {PrintState.CLAIMED, PrintState.RENDERED, PrintState.FAILED_SAFE, PrintState.HELD, PrintState.CANCELLED}
        ),
        PrintState.RENDERED: frozenset(
            {PrintState.CLAIMED, PrintState.SENDING, PrintState.FAILED_SAFE, PrintState.HELD, PrintState.CANCELLED}
        ),
        PrintState.SENDING: frozenset(
            {PrintState.CLAIMED, PrintState.ACCEPTED, PrintState.FAILED_SAFE, PrintState.HELD, PrintState.UNKNOWN}
        ),
        PrintState.ACCEPTED: frozenset({PrintState.DONE, PrintState.UNKNOWN, PrintState.CONFIRMED}),
        PrintState.DONE: frozenset({PrintState.CONFIRMED}),
        PrintState.CONFIRMED: frozenset(),
        PrintState.HELD: frozenset({PrintState.CLAIMED, PrintState.HELD, PrintState.EXPIRED, PrintState.CANCELLED}),
        PrintState.FAILED_SAFE: frozenset(
            {PrintState.CLAIMED, PrintState.HELD, PrintState.EXPIRED, PrintState.CANCELLED}
        ),
        PrintState.UNKNOWN: frozenset(
            {PrintState.ACCEPTED, PrintState.DONE, PrintState.CONFIRMED, PrintState.CANCELLED}
        ),
        PrintState.EXPIRED: frozenset(),
        PrintState.CANCELLED: frozenset(),
    }
)
"""From each state, the states that may follow. `sending` returns to `claimed` only for a printer that can repeat.
`unknown` becomes `accepted` when the printer reports the job after all."""
