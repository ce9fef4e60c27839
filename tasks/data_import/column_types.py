# SPDX-License-Identifier: Apache-2.0
"""Types of the columns of an import: what a cell may contain, and how it becomes a value."""

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

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
OptionalTimeZone = Annotated[TimeZone | None, BeforeValidator(_none_if_empty)]
PrinterUri = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=500)]
StationKey = Annotated[str, Field(min_length=16, max_length=200), AfterValidator(_without_controls)]
DeliveryCode = Annotated[
    Annotated[str, Field(max_length=40)] | None, BeforeValidator(_none_if_empty), BeforeValidator(_text)
]
ExternalIdentifier = Annotated[str, BeforeValidator(_identifier), Field(min_length=1, max_length=100)]
Status = Annotated[RequestStatus, BeforeValidator(_status)]
Isbn = Annotated[str | None, BeforeValidator(_isbn)]
Barcode = Annotated[str, BeforeValidator(_barcode)]
Barcodes = Annotated[list[str], BeforeValidator(_barcodes), Field(min_length=1, max_length=20)]
OptionalBarcodes = Annotated[list[str], BeforeValidator(lambda v: _barcodes(v) if v else []), Field(max_length=20)]
Position = Annotated[
    Annotated[int, Field(ge=1, le=1000)] | None, BeforeValidator(_none_if_empty), BeforeValidator(_text)
]
RequiredMoment = Annotated[datetime, BeforeValidator(_moment)]
