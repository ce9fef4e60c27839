# SPDX-License-Identifier: Apache-2.0
"""Rows that can be imported: a model for each kind, with its columns and their validation."""

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, ClassVar, Final, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from schemas.barcodes import clean, unwrap_spreadsheet
from schemas.external_text import CUT, one_line
from schemas.isbn import find_isbn
from schemas.request_status import RequestStatus
from schemas.topology import CODE_PATTERN
from tasks.data_import.date_formats import parse_iso

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

MAX_TEXT: Final = 10_000
"""Characters of a text that is shortened. A longer one is damage: rows that an open quote made into text."""
MAX_LINES: Final = 7
"""Lines of an address."""
MAX_LINE: Final = 200


def _text(value: object) -> object:
    """One printable line. A lone surrogate stays: the row with it is refused."""
    return value if not isinstance(value, str) or _SURROGATE.search(value) else _line(value)


def _line(value: str) -> str:
    _refuse_nul(value)
    return one_line(value)


def _refuse_nul(value: str) -> None:
    if "\x00" in value:
        raise ValueError("contains a NUL character")


def _shortened(limit: int) -> Callable[[object, ValidationInfo], object]:
    """A validator that shortens a descriptive text to `limit` characters, and adds the column to the context."""

    def shorten(value: object, info: ValidationInfo) -> object:
        text = _text(value)
        return _shorten(text, limit, info) if isinstance(text, str) and len(text) > limit else text

    return shorten


def _shorten(text: str, limit: int, info: ValidationInfo) -> str:
    if len(text) > MAX_TEXT:
        raise ValueError(f"has {len(text)} characters; is a quote left open?")
    if isinstance(info.context, list) and info.field_name not in info.context:
        info.context.append(info.field_name)
    return text[: limit - len(CUT)].rstrip() + CUT


def _identifier(value: object) -> object:
    """Unwrap a spreadsheet's text and fold white space. Raises `ValueError` for what no identifier contains."""
    if not isinstance(value, str):
        return value
    text = unwrap_spreadsheet(value)
    if not text.isprintable():
        _refuse_nul(value)
        if "\n" in text or "\r" in text:
            raise ValueError("contains a line break; is a quote left open?")
        if any(unicodedata.category(c) in {"Cc", "Cf"} and not c.isspace() for c in text):
            raise ValueError("contains control characters")
    return " ".join(text.split())


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _lines(value: object, info: ValidationInfo) -> object:
    """Split lines at `|`; accept a JSON list as well. Lines above the limit are joined to the last one."""
    parts = value.split("|") if isinstance(value, str) else value
    if not isinstance(parts, list):
        return parts
    lines = [line for part in parts if (line := _text(part))]
    if len(lines) > MAX_LINES and all(isinstance(line, str) for line in lines):
        lines[MAX_LINES - 1 :] = [", ".join(str(line) for line in lines[MAX_LINES - 1 :])]
    return [
        _shorten(line, MAX_LINE, info) if isinstance(line, str) and len(line) > MAX_LINE else line for line in lines
    ]


def _barcode(value: object) -> object:
    if not isinstance(value, str):
        return value
    _refuse_nul(value)
    return clean(unwrap_spreadsheet(value))


def _barcodes(value: object) -> object:
    parts = unwrap_spreadsheet(value).split("|") if isinstance(value, str) else value
    return [_barcode(part) for part in parts] if isinstance(parts, list) else parts


def _status(value: object) -> object:
    return RequestStatus.parse(value) if isinstance(value, str) else value


def _moment(value: object) -> object:
    """Parse ISO 8601 into UTC; a date is its first moment. Without a zone it is local time of this machine."""
    moment = _date_or_moment(value)
    if moment is None or isinstance(moment, datetime):
        return moment
    return _utc(datetime.combine(moment, time()))


def _date_or_moment(value: object) -> date | None:
    """Parse ISO 8601: a time into UTC, or a date."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    found = parse_iso(value.strip()) if isinstance(value, str) else value
    if isinstance(found, datetime):
        return _utc(found)
    if isinstance(found, date):
        return found
    raise ValueError("is not a date in the form of ISO 8601, for example 2026-11-28")


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except (OverflowError, OSError):
        raise ValueError("is outside the years 1 to 9999 in UTC") from None


def _isbn(value: object) -> object:
    return find_isbn(value) if isinstance(value, str) else value


def _flag(value: object) -> object:
    return False if isinstance(value, str) and not value.strip() else value


def _without_controls(value: str) -> str:
    if any(unicodedata.category(c) == "Cc" for c in value):
        raise ValueError("has control characters")
    return value


def _known_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("is not the name of a time zone that this machine knows, for example Europe/Berlin") from None
    return value


UNNAMED: Any = None
"""Value of a column that a row does not name. Only a row that is stored already may leave out a `new_columns` column."""

Name = Annotated[str, BeforeValidator(_shortened(200)), Field(min_length=1, max_length=200)]
Title = Annotated[str, BeforeValidator(_shortened(1000)), Field(min_length=1, max_length=1000)]
OptionalText = Annotated[
    Annotated[str, Field(max_length=500)] | None, BeforeValidator(_none_if_empty), BeforeValidator(_shortened(500))
]
Identifier = Annotated[str, BeforeValidator(_identifier), Field(min_length=1, max_length=200)]
OptionalIdentifier = Annotated[
    Annotated[str, Field(max_length=200)] | None, BeforeValidator(_none_if_empty), BeforeValidator(_identifier)
]
Code = Annotated[str, BeforeValidator(_text), Field(pattern=CODE_PATTERN, max_length=40)]
OptionalCode = Annotated[
    Annotated[str, Field(pattern=CODE_PATTERN, max_length=40)] | None,
    BeforeValidator(_none_if_empty),
    BeforeValidator(_text),
]
PartnerCode = Annotated[str, BeforeValidator(_identifier), Field(min_length=1, max_length=40)]
Lines = Annotated[
    list[Annotated[str, Field(max_length=MAX_LINE)]], BeforeValidator(_lines), Field(max_length=MAX_LINES)
]
Moment = Annotated[datetime | None, BeforeValidator(_moment)]
DueMoment = Annotated[datetime | date | None, BeforeValidator(_date_or_moment)]
"""A time in UTC, or the date of a day whose end depends on the time zone of a branch."""
TimeZone = Annotated[
    str,
    BeforeValidator(_text),
    Field(pattern=r"^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$", max_length=64),
    AfterValidator(_known_zone),
]
Flag = Annotated[bool, BeforeValidator(_flag)]


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
    timezone: Annotated[TimeZone | None, BeforeValidator(_none_if_empty)] = None
    """IANA name of the time zone in which due dates end, for example `Europe/Berlin`. Empty: that of this machine."""


class PrinterRow(Row):
    """A printer at a branch."""

    kind: ClassVar[str] = "printers"
    natural_key: ClassVar[str] = "code"
    new_columns: ClassVar[tuple[str, ...]] = ("branch", "uri")
    code: Code
    branch: Code = UNNAMED
    uri: Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=500)] = UNNAMED
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
    key: Annotated[str, Field(min_length=16, max_length=200), AfterValidator(_without_controls)] = UNNAMED
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
    delivery_code: Annotated[
        Annotated[str, Field(max_length=40)] | None, BeforeValidator(_none_if_empty), BeforeValidator(_text)
    ] = None
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
    external_id: Annotated[str, BeforeValidator(_identifier), Field(min_length=1, max_length=100)]
    partner: PartnerCode = UNNAMED
    """Code of the lending library."""
    branch: Code = UNNAMED
    """Code of the branch that owns the request."""
    status: Annotated[RequestStatus, BeforeValidator(_status)] = UNNAMED
    """Status by its label, for example `Loaned to patron`."""
    title: Title = UNNAMED
    author: OptionalText = None
    isbn: Annotated[str | None, BeforeValidator(_isbn)] = None
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
    barcode: Annotated[list[str], BeforeValidator(_barcodes), Field(min_length=1, max_length=20)] = []
    """Barcodes of the item, separated by `|`."""
    temporary_barcode: Annotated[
        list[str], BeforeValidator(lambda v: _barcodes(v) if v else []), Field(max_length=20)
    ] = []
    """Temporary barcodes, put on at receipt, separated by `|`."""
    request: OptionalIdentifier = None
    """External identifier of its request; empty for an item that the library owns."""
    position: Annotated[
        Annotated[int, Field(ge=1, le=1000)] | None, BeforeValidator(_none_if_empty), BeforeValidator(_text)
    ] = None
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
    barcode: Annotated[str, BeforeValidator(_barcode)]
    """A barcode of the item. If several items have it, the loan is of the open request's; a past loan is of the item
    whose request fits its time."""
    patron: OptionalIdentifier = None
    """Number of the patron; not stored for a discharged loan, unless a fee is open."""
    loaned_at: Annotated[datetime, BeforeValidator(_moment)]
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
