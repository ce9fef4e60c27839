# SPDX-License-Identifier: Apache-2.0
"""Upsert rows by their natural key, one batch at a time: two statements to read, at most two to write."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from schemas.models import Model, table


class Outcome(StrEnum):
    """Effect of a row on its table."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


class RowRefusedError(Exception):
    """A row that cannot be stored. The text states the reason."""


def ids_by_key(
    session: Session, column: InstrumentedAttribute[str], keys: Iterable[str | None], noun: str
) -> dict[str, int]:
    """Ids by natural key. Raises `RowRefusedError` for the first missing one, in sorted order; `noun` names its kind."""
    wanted = {key for key in keys if key is not None}
    rows = session.execute(select(column, column.class_.id).where(column.in_(wanted))).all()
    found = {row[0]: row[1] for row in rows}
    for key in sorted(wanted - set(found)):
        raise RowRefusedError(f"there is no {noun} {key}; import it first")
    return found


def upsert(session: Session, model: type[Model], key: str, rows: Sequence[dict[str, Any]]) -> list[Outcome]:
    """Insert new rows and update changed ones, by the natural key in column `key`; return each row's outcome."""
    target = table(model)
    columns = [target.c[name] for name in {"id", *(name for row in rows for name in row)}]
    keys = [row[key] for row in rows]
    stored = {
        row[key]: dict(row) for row in session.execute(select(*columns).where(target.c[key].in_(keys))).mappings()
    }
    inserts: dict[Any, dict[str, Any]] = {}
    updates: dict[int, dict[str, Any]] = {}
    outcomes: list[Outcome] = []
    for row in rows:
        before = inserts.get(row[key]) or stored.get(row[key])
        if before is None:
            inserts[row[key]] = dict(row)
            outcomes.append(Outcome.ADDED)
        elif all(before[name] == value for name, value in row.items()):
            outcomes.append(Outcome.UNCHANGED)
        else:
            before.update(row)
            if "id" in before:
                updates[before["id"]] = {f"b_{name}": before[name] for name in [*row, "id"]}
            outcomes.append(Outcome.CHANGED)
    if inserts:
        session.execute(insert(target), list(inserts.values()))
    if updates:
        names = [name for name in rows[0] if name != key]
        statement = update(target).where(target.c.id == bindparam("b_id"))
        values = {name: bindparam(f"b_{name}", type_=target.c[name].type) for name in names}
        session.connection().execute(statement.values(values), list(updates.values()))
    return outcomes
