# SPDX-License-Identifier: Apache-2.0
"""Store rows of branches, printers, stations, partners and patrons, each by its natural key."""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from schemas.models import Branch, Partner, Patron, Printer, Station
from tasks.data_import.outcome import RowResult
from tasks.data_import.row_models import PrinterRow, Row, StationRow
from tasks.data_import.upsert import RowRefusedError, StoreContext, ids_by_key, record_of, upsert


def store_branches(rows: Sequence[Row], session: Session, context: StoreContext) -> list[RowResult]:
    """Upsert branches by code."""
    return upsert(session, Branch, "code", [record_of(row, row.model_dump()) for row in rows])


def store_partners(rows: Sequence[Row], session: Session, context: StoreContext) -> list[RowResult]:
    """Upsert lending libraries by code."""
    return upsert(session, Partner, "code", [record_of(row, row.model_dump()) for row in rows])


def store_patrons(rows: Sequence[Row], session: Session, context: StoreContext) -> list[RowResult]:
    """Upsert patrons by number."""
    return upsert(session, Patron, "number", [record_of(row, row.model_dump()) for row in rows])


def store_printers(rows: Sequence[Row], session: Session, context: StoreContext) -> list[RowResult]:
    """Upsert printers by code."""
    printers = [cast("PrinterRow", row) for row in rows]
    branches = ids_by_key(session, Branch.code, (row.branch for row in printers), "branch")
    return upsert(
        session,
        Printer,
        "code",
        [
            record_of(
                row,
                {
                    "code": row.code,
                    "branch_id": branches.get(row.branch),
                    "uri": row.uri,
                    "media": row.media,
                    "is_default": row.is_default,
                },
            )
            for row in printers
        ],
    )


def store_stations(rows: Sequence[Row], session: Session, context: StoreContext) -> list[RowResult]:
    """Upsert stations by code. Raises `RowRefusedError` for another key of a stored station, unless keys rotate.

    A rotation has no overlap here: each earlier key of the station ends.
    """
    stations = [cast("StationRow", row) for row in rows]
    branches = ids_by_key(session, Branch.code, (row.branch for row in stations), "branch")
    printers = ids_by_key(session, Printer.code, (row.printer for row in stations), "printer")
    changed = _other_keys(stations, session)
    if changed and not context.rotate_keys:
        raise RowRefusedError(f"station {changed[0]} has another key here; only --rotate-keys changes it")
    outcomes = upsert(
        session,
        Station,
        "code",
        [
            record_of(
                row,
                {
                    "code": row.code,
                    "branch_id": branches.get(row.branch),
                    "key": row.key,
                    "key_since": context.now,
                    "active": row.active,
                    "printer_id": printers[row.printer] if row.printer else None,
                },
            )
            for row in stations
        ],
    )
    if changed:
        session.connection().execute(
            update(Station)
            .where(Station.code.in_(changed))
            .values(key_since=context.now, previous_key=None, previous_key_until=None)
        )
    return outcomes


def _other_keys(stations: Sequence[StationRow], session: Session) -> list[str]:
    """The codes of stations that have another key in the database, or in an earlier row."""
    stored = select(Station.code, Station.key).where(Station.code.in_([row.code for row in stations]))
    keys = {row.code: row.key for row in session.execute(stored.with_for_update())}
    return [row.code for row in stations if row.key is not None and keys.setdefault(row.code, row.key) != row.key]
