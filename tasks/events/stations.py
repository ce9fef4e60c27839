# SPDX-License-Identifier: Apache-2.0
"""The stations that may speak, and what the worker knows of each."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session, aliased

from schemas.models import Branch, Printer, Station


@dataclass(frozen=True)
class StationRecord:
    """A station as the worker knows it."""

    code: str
    key: str
    branch: str
    sent_from: tuple[str, ...]
    """Library, branch, and the branch's address: FROM on the slip."""
    printer_id: int | None


_default = aliased(Printer)
_DESKS = (
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
    rows = session.execute(_DESKS, {"codes": list(codes)})
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
