# SPDX-License-Identifier: Apache-2.0
"""Due dates of loans: a date means the end of that day, in the time zone of the branch of the item's request."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import case, select
from sqlalchemy.orm import Session

from schemas.models import Branch, Item, ItemBarcode, Request
from schemas.request_status import CLOSED
from tasks.data_import.row_models import LoanRow

END_OF_DAY: Final = time(23, 59, 59)


def with_due_times(rows: Sequence[LoanRow], session: Session) -> list[LoanRow]:
    """The rows with a time in place of each due date. One query, if a row has a date."""
    barcodes = {row.barcode for row in rows if _is_date(row.due_at)}
    if not barcodes:
        return list(rows)
    zones = _zones(barcodes, session)
    return [
        row.model_copy(update={"due_at": end_of_day(row.due_at, zones.get(row.barcode))})
        if row.due_at is not None and _is_date(row.due_at)
        else row
        for row in rows
    ]


def due_before_loan(row: LoanRow) -> str | None:
    """The reason to refuse a row that is due before its loan began."""
    if isinstance(row.due_at, datetime) and row.due_at < row.loaned_at:
        return f"due_at is before the loan began ({row.loaned_at:%Y-%m-%d %H:%M} UTC)"
    return None


def end_of_day(day: date, zone: str | None) -> datetime:
    """The last second of a day, in UTC. Without a zone the day is that of this machine."""
    try:
        return datetime.combine(day, END_OF_DAY.replace(fold=1), ZoneInfo(zone) if zone else None).astimezone(UTC)
    except OverflowError:
        return datetime.combine(day, END_OF_DAY, UTC)


def _is_date(value: date | None) -> bool:
    return value is not None and not isinstance(value, datetime)


def _zones(barcodes: set[str], session: Session) -> dict[str, str | None]:
    """The time zone by barcode: of the open request with it, else of the item added last."""
    found = session.execute(
        select(ItemBarcode.barcode, Branch.timezone)
        .join(Item, Item.id == ItemBarcode.item_id)
        .join(Request, Request.id == Item.request_id)
        .join(Branch, Branch.id == Request.branch_id)
        .where(ItemBarcode.barcode.in_(barcodes))
        .order_by(case((Request.status.in_(CLOSED), 0), else_=1), Item.id)
    )
    return {row.barcode: row.timezone for row in found}
