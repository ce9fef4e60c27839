# SPDX-License-Identifier: Apache-2.0
"""Storing what the library registers: branches, printers, stations, partners, patrons."""

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from sqlalchemy.orm import Session

from schemas.models import Branch, Partner, Patron, Printer, Station
from tasks.data_import.row_models import BranchRow, PartnerRow, PatronRow, PrinterRow, Row, StationRow
from tasks.data_import.upsert import Outcome, known_ids, merge


def store_branches(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Branches, by code."""
    return merge(session, Branch, "code", [cast("BranchRow", row).model_dump() for row in rows])


def store_partners(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Lending libraries, by code."""
    return merge(session, Partner, "code", [cast("PartnerRow", row).model_dump() for row in rows])


def store_patrons(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Readers, by number."""
    return merge(session, Patron, "number", [cast("PatronRow", row).model_dump() for row in rows])


def store_printers(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Printers, by code."""
    given = [cast("PrinterRow", row) for row in rows]
    branches = known_ids(session, Branch.code, (row.branch for row in given), "branch")
    return merge(
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
            for row in given
        ],
    )


def store_stations(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Stations, by code."""
    given = [cast("StationRow", row) for row in rows]
    branches = known_ids(session, Branch.code, (row.branch for row in given), "branch")
    printers = known_ids(session, Printer.code, (row.printer for row in given), "printer")
    return merge(
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
            for row in given
        ],
    )
