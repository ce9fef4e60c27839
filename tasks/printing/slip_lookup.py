# SPDX-License-Identifier: Apache-2.0
"""Find print jobs by the last digits of their ids, as short forms of slips' codes contain them."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, or_, select, text

from schemas.models import PrintJob
from schemas.slip_codes import SHORT_DIGITS

MAX_CANDIDATES: Final = 20
"""Slips that are listed for digits that several have."""

# Migration 0014 creates an index on the first expression of each database.
_LAST_DIGITS: Final = {"postgresql": '"right"(print_jobs.id::text, 12)', "sqlite": "substr(print_jobs.id, -12)"}
_ALL_DIGITS: Final = {"postgresql": "replace(print_jobs.id::text, '-', '')", "sqlite": "print_jobs.id"}


@dataclass(frozen=True)
class FoundSlip:
    """A print job whose id ends with the digits that were looked for."""

    job_id: UUID
    item_id: int
    request: str
    barcode: str


def find_slips(connection: Connection, meanings: Collection[str]) -> list[FoundSlip]:
    """The newest print jobs whose ids end with one of `meanings`, which are lower-case hexadecimal digits.

    With 12 digits or more the lookup uses an index; with fewer it reads all ids.
    """
    if not meanings:
        return []
    conditions = [_ends_with(connection, digits, number) for number, digits in enumerate(sorted(meanings))]
    rows = connection.execute(
        select(PrintJob.id, PrintJob.item_id, PrintJob.content)
        .where(or_(*conditions))
        .order_by(PrintJob.id.desc())
        .limit(MAX_CANDIDATES)
    )
    return [FoundSlip(row.id, row.item_id, row.content["external_id"], row.content["barcode"]) for row in rows]


def _ends_with(connection: Connection, digits: str, number: int) -> ColumnElement[bool]:
    last, complete = _LAST_DIGITS[connection.dialect.name], _ALL_DIGITS[connection.dialect.name]
    if len(digits) == SHORT_DIGITS:
        return _condition(f"{last} = :digits{number}", {f"digits{number}": digits})
    if len(digits) < SHORT_DIGITS:
        return _condition(f"{last} LIKE :digits{number}", {f"digits{number}": f"%{digits}"})
    return _condition(
        f"({last} = :last{number} AND {complete} LIKE :digits{number})",
        {f"last{number}": digits[-SHORT_DIGITS:], f"digits{number}": f"%{digits}"},
    )


def _condition(sql: str, values: dict[str, str]) -> ColumnElement[bool]:
    return text(sql).bindparams(**values)  # type: ignore[return-value]
