# SPDX-License-Identifier: Apache-2.0
"""What stations say: events, frozen, versioned by name.

Within a version changes are additive only: readers ignore fields they do not know, writers send none.
"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from schemas.topology import CODE_PATTERN

Code = Annotated[str, Field(pattern=CODE_PATTERN, max_length=40)]
"""Code of a station, branch or printer."""


class Message(BaseModel):
    """Common to all messages: frozen values; unknown fields are ignored by readers."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Override(Message):
    """A supervisor's word that a Return goes through although the table refuses it."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]
    supervisor: Annotated[str, Field(min_length=1, max_length=100)]


class StationEvent(Message):
    """Common to what a station says."""

    event_id: UUID
    """UUIDv7, made once by the station; a resend carries the same one."""
    station: Code
    sequence: Annotated[int, Field(ge=0, lt=2**53)]
    """The station's own count, one more for each event."""
    signature: Annotated[str, Field(min_length=64, max_length=64)]
    """HMAC-SHA256 over the canonical JSON of all other fields, hexadecimal."""


class ReturnEvent(StationEvent):
    """Common to the two ways to return."""

    print_slip: bool
    """Whether a slip is wanted."""
    returned_at: AwareDatetime | None = None
    """When the item really came back (drop-box mode), if not now."""


class BarcodeScanned(ReturnEvent):
    """An item barcode was scanned at a station under "Return items"."""

    type: Literal["bookdrop.barcode-scanned.v1"] = "bookdrop.barcode-scanned.v1"
    barcode: Annotated[str, Field(max_length=1024)]
    scanned_at: AwareDatetime
    print_slip: bool = True

    @property
    def occurred_at(self) -> datetime:
        """When staff did it, by the station's clock."""
        return self.scanned_at


class ReturnRequested(ReturnEvent):
    """Staff chose Return on a borrowing request."""

    type: Literal["bookdrop.return-requested.v1"] = "bookdrop.return-requested.v1"
    request: Annotated[str, Field(min_length=1, max_length=100)]
    """The request's external identifier."""
    requested_at: AwareDatetime
    note: Annotated[str, Field(max_length=10_000)] | None = None
    print_slip: bool = False
    override: Override | None = None
    resolution: Literal["found_by_library", "returned_by_patron"] | None = None
    """How a claim that the item was returned long ago ends."""
    force_partial: bool = False
    """Return the request although not all of its items are here."""

    @property
    def occurred_at(self) -> datetime:
        """When staff did it, by the station's clock."""
        return self.requested_at


Event = BarcodeScanned | ReturnRequested
