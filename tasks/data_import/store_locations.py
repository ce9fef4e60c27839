# SPDX-License-Identifier: Apache-2.0
"""Store rows of branches, printers, stations, partners and patrons, each by its natural key."""

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from sqlalchemy.orm import Session

from schemas.models import Branch, Partner, Patron, Printer, Station
from tasks.data_import.row_models import BranchRow, PartnerRow, PatronRow, PrinterRow, Row, StationRow
from tasks.data_import.upsert import Outcome, ids_by_key, upsert


def store_branches(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Upsert branches by code."""
    return upsert(session, Branch, "code", [cast("BranchRow", row).model_dump() for row in rows])


def store_partners(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Upsert lending libraries by code."""
    return upsert(session, Partner, "code", [cast("PartnerRow", row).model_dump() for row in rows])


def store_patrons(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Upsert patrons by number."""
    return upsert(session, Patron, "number", [cast("PatronRow", row).model_dump() for row in rows])


def store_printers(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Upsert printers by code."""
    printers = [cast("PrinterRow", row) for row in rows]
    branches = ids_by_key(session, Branch.code, (row.branch for row in printers), "branch")
    return upsert(
        session,
        Printer,
        "code",
        [
            {
                "code": row.code,
                "branch_id": branches[row.branch],
                "uri": row.uri,
                "media": row.media,
                "is_default": row.is_default,
            }
            for row in printers
        ],
    )


def store_stations(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Upsert stations by code."""
    stations = [cast("StationRow", row) for row in rows]
    branches = ids_by_key(session, Branch.code, (row.branch for row in stations), "branch")
    printers = ids_by_key(session, Printer.code, (row.printer for row in stations), "printer")
    return upsert(
        session,
        Station,
        "code",
        [
            {
                "code": row.code,
                "branch_id": branches[row.branch],
                "key": row.key,
                "active": row.active,
                "printer_id": printers[row.printer] if row.printer else None,
            }
            for row in stations
        ],
    )
