# SPDX-License-Identifier: Apache-2.0
"""Rows into a table by their natural key, a batch at a time: two statements to look, at most two to write."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from schemas.models import Model, table


class Outcome(StrEnum):
    """What became of a row."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


class RefusedRowError(Exception):
    """A row that cannot be stored. The text says why."""


def known_ids(
    session: Session, column: InstrumentedAttribute[str], wanted: Iterable[str | None], what: str
) -> dict[str, int]:
    """Ids by natural key. Raises `RefusedRowError` for the first that is not there."""
    keys = {key for key in wanted if key is not None}
    rows = session.execute(select(column, column.class_.id).where(column.in_(keys))).all()
    found = {row[0]: row[1] for row in rows}
    for key in sorted(keys - set(found)):
        raise RefusedRowError(f"there is no {what} {key}; import it first")
    return found


def merge(session: Session, model: type[Model], key: str, wanted: Sequence[dict[str, Any]]) -> list[Outcome]:
    """Add or change rows by their natural key; values that are the same stay."""
    target = table(model)
    columns = [target.c[name] for name in {"id", *(name for row in wanted for name in row)}]
    keys = [row[key] for row in wanted]
    stored = {
        row[key]: dict(row) for row in session.execute(select(*columns).where(target.c[key].in_(keys))).mappings()
    }
    fresh: dict[Any, dict[str, Any]] = {}
    changes: dict[int, dict[str, Any]] = {}
    outcomes: list[Outcome] = []
    for row in wanted:
        before = fresh.get(row[key]) or stored.get(row[key])
        if before is None:
            fresh[row[key]] = dict(row)
            outcomes.append(Outcome.ADDED)
        elif all(before[name] == value for name, value in row.items()):
            outcomes.append(Outcome.UNCHANGED)
        else:
            before.update(row)
            if "id" in before:
                changes[before["id"]] = {f"b_{name}": before[name] for name in [*row, "id"]}
            outcomes.append(Outcome.CHANGED)
    if fresh:
        session.execute(insert(target), list(fresh.values()))
    if changes:
        names = [name for name in wanted[0] if name != key]
        statement = update(target).where(target.c.id == bindparam("b_id"))
        values = {name: bindparam(f"b_{name}", type_=target.c[name].type) for name in names}
        session.connection().execute(statement.values(values), list(changes.values()))
    return outcomes
