# SPDX-License-Identifier: Apache-2.0
"""The lists of branches and stations for operators. They contain no key."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, func, null, select

from schemas.models import Branch, Printer, Station, StationHeartbeat


def branches(connection: Connection) -> list[dict[str, Any]]:
    """All branches in the order of their codes, each with its default printer and the number of its active stations."""
    active = (
        select(func.count())
        .select_from(Station)
        .where(Station.branch_id == Branch.id, Station.active)
        .scalar_subquery()
    )
    printer = select(func.min(Printer.code)).where(Printer.branch_id == Branch.id, Printer.is_default).scalar_subquery()
    rows = connection.execute(
        select(
            Branch.code.label("branch"),
            Branch.name,
            Branch.library,
            Branch.address,
            Branch.delivery_code,
            Branch.timezone,
            printer.label("printer"),
            active.label("stations"),
        ).order_by(Branch.code)
    )
    return [dict(row) for row in rows.mappings()]


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
