# SPDX-License-Identifier: Apache-2.0
"""Load the active stations that sign events."""

from collections.abc import Collection

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session, aliased

from schemas.models import Branch, Printer, Station
from tasks.events.model import StationRecord

_default = aliased(Printer)
_STATIONS = (
    select(
        Station.code,
        Station.key,
        Branch.code.label("branch"),
        Branch.library,
        Branch.name,
        Branch.address,
        Station.printer_id,
        _default.id.label("default_printer_id"),
    )
    .join(Branch, Branch.id == Station.branch_id)
    .outerjoin(_default, (_default.branch_id == Branch.id) & _default.is_default)
    .where(Station.code.in_(bindparam("codes", expanding=True)), Station.active)
    .order_by(_default.id.desc())
)


def load_stations(session: Session, codes: Collection[str]) -> dict[str, StationRecord]:
    """The active stations among `codes`, each with the printer that takes its slips."""
    rows = session.execute(_STATIONS, {"codes": list(codes)})
    return {
        row.code: StationRecord(
            code=row.code,
            key=row.key,
            branch=row.branch,
            sent_from=(row.library, row.name, *row.address),
            printer_id=row.printer_id or row.default_printer_id,
        )
        for row in rows
    }
