# SPDX-License-Identifier: Apache-2.0
"""The list of stations for operators. It contains no key."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, null, select

from schemas.models import Branch, Printer, Station, StationHeartbeat


def stations(connection: Connection, now: datetime) -> list[dict[str, Any]]:
    """All stations in the order of their codes; `overlap_until` is `None` without a valid previous key."""
    rows = connection.execute(
        select(
            Station.code.label("station"),
            Branch.code.label("branch"),
            Printer.code.label("printer"),
            Station.active.label("enabled"),
            Station.key_since,
            case((Station.previous_key_until > now, Station.previous_key_until), else_=null()).label("overlap_until"),
            StationHeartbeat.at.label("last_event_at"),
        )
        .join(Branch, Branch.id == Station.branch_id)
        .outerjoin(Printer, Printer.id == Station.printer_id)
        .outerjoin(StationHeartbeat, StationHeartbeat.station == Station.code)
        .order_by(Station.code)
    )
    return [dict(row) for row in rows.mappings()]
