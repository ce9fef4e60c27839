# SPDX-License-Identifier: Apache-2.0
"""Load the stations that sign events, with the keys that are valid now."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session, aliased

from schemas.models import Branch, Printer, Station
from tasks.events.model import StationRecord
from tasks.stations.keys import previous_key_at

_default = aliased(Printer)
_STATIONS = (
    select(
        Station.code,
        Station.key,
        Station.previous_key,
        Station.previous_key_until,
        Station.active,
        Branch.code.label("branch"),
        Branch.id.label("branch_id"),
        Branch.library,
        Branch.name,
        Branch.address,
        Branch.delivery_code,
        Station.printer_id,
        _default.id.label("default_printer_id"),
    )
    .join(Branch, Branch.id == Station.branch_id)
    .outerjoin(_default, (_default.branch_id == Branch.id) & _default.is_default)
    .where(Station.code.in_(bindparam("codes", expanding=True)))
    .order_by(_default.id.desc())
)


def load_stations(session: Session, now: datetime, codes: Collection[str]) -> dict[str, StationRecord]:
    """The registered stations among `codes`, each with its keys that are valid `now` and the printer of its slips."""
    rows = session.execute(_STATIONS, {"codes": list(codes)})
    return {
        row.code: StationRecord(
            code=row.code,
            key=row.key,
            previous_key=previous_key_at(now, row.previous_key, row.previous_key_until),
            active=row.active,
            branch=row.branch,
            branch_id=row.branch_id,
            sent_from=(row.library, row.name, *row.address),
            sent_from_code=row.delivery_code,
            printer_id=row.printer_id or row.default_printer_id,
        )
        for row in rows
    }
