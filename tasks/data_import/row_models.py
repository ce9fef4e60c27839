# SPDX-License-Identifier: Apache-2.0
"""Rows that can be imported: a model for each kind, with its columns."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator

from tasks.data_import.column_types import (
    Barcode,
    Barcodes,
    Code,
    DeliveryCode,
    DueMoment,
    ExternalIdentifier,
    Flag,
    Identifier,
    Isbn,
    Lines,
    Moment,
    Name,
    OptionalBarcodes,
    OptionalCode,
    OptionalIdentifier,
    OptionalText,
    OptionalTimeZone,
    PartnerCode,
    Position,
    PrinterUri,
    RequiredMoment,
    StationKey,
    Status,
    Title,
)

UNNAMED: Any = None
"""Value of a column that a row does not name. Only a row that is stored already may leave out a `new_columns` column."""


class Row(BaseModel):
    """A row of a file. Its fields are the columns; its natural key identifies it in a later import.

    A field without a default belongs to the natural key. `model_fields_set` has the columns that the row names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    kind: ClassVar[str]
    natural_key: ClassVar[str]
    new_columns: ClassVar[tuple[str, ...]] = ()
    """Columns that a new row needs besides its natural key. A stored row keeps its value."""

    @classmethod
    def required_columns(cls) -> set[str]:
        """The columns of the natural key, and `new_columns`."""
        return {name for name, info in cls.model_fields.items() if info.is_required()} | set(cls.new_columns)

    def missing_columns(self) -> list[str]:
        """The columns that a new row needs and this row does not name."""
        return [name for name in self.new_columns if name not in self.model_fields_set]


class BranchRow(Row):
    """A branch of the library."""

    kind: ClassVar[str] = "branches"
    natural_key: ClassVar[str] = "code"
    new_columns: ClassVar[tuple[str, ...]] = ("name", "library")
    code: Code
    """Lower case letters, digits and hyphens, for example `main`."""
    name: Name = UNNAMED
    library: Name = UNNAMED
    """Name of the library, as slips show it under FROM."""
    address: Lines = []
    """Lines separated by `|`."""
    delivery_code: DeliveryCode = None
    """The branch's own code at the courier, as slips show it beside FROM."""
    timezone: OptionalTimeZone = None
    """IANA name of the time zone in which due dates end, for example `Europe/Berlin`. Empty: that of this machine."""


class PrinterRow(Row):
    """A printer at a branch."""

    kind: ClassVar[str] = "printers"
    natural_key: ClassVar[str] = "code"
    new_columns: ClassVar[tuple[str, ...]] = ("branch", "uri")
    code: Code
    branch: Code = UNNAMED
    uri: PrinterUri = UNNAMED
    """For example `spool:///var/spool/bookdrop/main` or `ipp://printer/ipp/print`."""
    media: Code = "label-4x6"
    """Its paper: `label-4x6`, `a6`, `a4-corner` or `receipt-80`."""
    is_default: Flag = False
    """`yes` for the printer of the branch's slips."""


class StationRow(Row):
    """A station: a place with a barcode scanner at a branch."""

    kind: ClassVar[str] = "stations"
    natural_key: ClassVar[str] = "code"
    new_columns: ClassVar[tuple[str, ...]] = ("branch", "key")
    code: Code
    branch: Code = UNNAMED
    key: StationKey = UNNAMED
    """Shared secret that signs its events, at least 16 characters."""
    printer: OptionalCode = None
    """Printer for its slips, if not the default printer of the branch."""
    active: Flag = True


class PartnerRow(Row):
    """A lending library."""

    kind: ClassVar[str] = "partners"
    natural_key: ClassVar[str] = "code"
    new_columns: ClassVar[tuple[str, ...]] = ("name",)
    code: PartnerCode
    """Identifier of the library among partners, usually its ISIL."""
    name: Name = UNNAMED
    address: Lines = []
    """Lines separated by `|`."""
    delivery_code: DeliveryCode = None
    """Sort code of the courier, the largest text on the slip."""


class PatronRow(Row):
    """A patron. Only requests and loans refer to a patron, until they are discharged."""

    kind: ClassVar[str] = "patrons"
    natural_key: ClassVar[str] = "number"
    new_columns: ClassVar[tuple[str, ...]] = ("name",)
    number: Identifier
    name: Name = UNNAMED


class RequestRow(Row):
    """A borrowing request."""

    kind: ClassVar[str] = "requests"
    natural_key: ClassVar[str] = "external_id"
    new_columns: ClassVar[tuple[str, ...]] = ("partner", "branch", "status", "title")
    external_id: ExternalIdentifier
    partner: PartnerCode = UNNAMED
    """Code of the lending library."""
    branch: Code = UNNAMED
    """Code of the branch that owns the request."""
    status: Status = UNNAMED
    """Status by its label, for example `Loaned to patron`."""
    title: Title = UNNAMED
    author: OptionalText = None
    isbn: Isbn = None
    """The first valid ISBN in the text, of 10 or 13 digits; stored with 13. A text without one counts as empty."""
    patron: OptionalIdentifier = None
    """Number of the patron."""
    return_address: Lines = []
    """Return address that the lender gave with this item: lines separated by `|`, the name first."""
    damage_note: OptionalText = None
    created_at: Moment = None
    """ISO 8601; without a zone, local time. Empty: the time of the import."""


class ItemRow(Row):
    """A physical item: of a request, or owned by the library."""

    kind: ClassVar[str] = "items"
    natural_key: ClassVar[str] = (
        "request and position, or request and barcode; the first barcode for an item that the library owns"
    )
    new_columns: ClassVar[tuple[str, ...]] = ("barcode",)
    barcode: Barcodes = []
    """Barcodes of the item, separated by `|`."""
    temporary_barcode: OptionalBarcodes = []
    """Temporary barcodes, put on at receipt, separated by `|`."""
    request: OptionalIdentifier = None
    """External identifier of its request; empty for an item that the library owns."""
    position: Position = None
    """1 for the first item of its request. Empty: the item with one of the barcodes, else a further item."""
    description: OptionalText = None

    @model_validator(mode="after")
    def _has_natural_key(self) -> Self:
        if not (self.request or self.barcode):
            raise ValueError("an item needs a request or a barcode")
        return self


class LoanRow(Row):
    """A loan of an item to a patron."""

    kind: ClassVar[str] = "loans"
    natural_key: ClassVar[str] = "barcode and loaned_at"
    barcode: Barcode
    """A barcode of the item. If several items have it, the loan is of the open request's; a past loan is of the item
    whose request fits its time."""
    patron: OptionalIdentifier = None
    """Number of the patron; not stored for a discharged loan, unless a fee is open."""
    loaned_at: RequiredMoment
    due_at: DueMoment = None
    """A date without a time is due at the end of that day, in the time zone of the branch of the item's request."""
    discharged_at: Moment = None
    """Empty while the item is on loan."""
    fee_open: Flag = False
    claimed_returned: Flag = False


KINDS: dict[str, type[Row]] = {
    row.kind: row for row in (BranchRow, PrinterRow, StationRow, PartnerRow, PatronRow, RequestRow, ItemRow, LoanRow)
}
"""Kinds in the order of import: each kind refers only to those before it."""

DATE_COLUMNS = frozenset({"created_at", "loaned_at", "due_at", "discharged_at"})
"""Columns of dates and times, of all kinds."""
