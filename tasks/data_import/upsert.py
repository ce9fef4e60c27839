# SPDX-License-Identifier: Apache-2.0
"""Upsert rows by their natural key, one batch at a time. A stored row changes only in the columns that a row names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from schemas.models import Model, table
from tasks.data_import.outcome import Note, Outcome, RowResult, refused
from tasks.data_import.row_models import Row


class RowRefusedError(Exception):
    """A row that cannot be stored. The text states the reason."""


def ids_by_key(
    session: Session, column: InstrumentedAttribute[str], keys: Iterable[str | None], noun: str
) -> dict[str, int]:
    """Ids by natural key. Raises `RowRefusedError` for the first missing one, in sorted order; `noun` names its kind."""
    wanted = {key for key in keys if key is not None}
    found = find_ids(session, column, wanted)
    for key in sorted(wanted - set(found)):
        raise RowRefusedError(unknown_reference(noun, key))
    return found


def find_ids(session: Session, column: InstrumentedAttribute[str], keys: Iterable[str | None]) -> dict[str, int]:
    """Ids by natural key, of the keys that are stored."""
    wanted = {key for key in keys if key}
    if not wanted:
        return {}
    return {row[0]: row[1] for row in session.execute(select(column, column.class_.id).where(column.in_(wanted)))}


def unknown_reference(noun: str, key: str) -> str:
    """The reason of a row that refers to a missing row."""
    return f"there is no {noun} {key}; import it first"


@dataclass(frozen=True)
class StoreContext:
    """Time and permissions of an import."""

    now: datetime
    rotate_keys: bool = False
    """True to let a row change the key of a stored station."""
    added_items: set[int] = field(default_factory=set)
    """Items that this import added, in batches that are stored."""


@dataclass(frozen=True)
class Record:
    """Values of a row in the columns of its table."""

    values: dict[str, Any]
    """All columns: those that the row does not name have their defaults."""
    named: frozenset[str]
    """The columns that change in a stored row."""
    missing: Sequence[str]
    """Columns that a new row needs and that the row does not name."""

    notes: tuple[Note, ...] = ()
    """Notes on parts of the row that do not apply."""


def missing_columns(names: Iterable[str]) -> str:
    """The reason of a new row without columns that it needs."""
    return f"is not stored yet; a new row needs {', '.join(names)}"


def record_of(row: Row, values: dict[str, Any]) -> Record:
    """The record of `row`; `values` has a column `<name>_id` for each column that refers to another kind."""
    named = {name if name in values else f"{name}_id" for name in row.model_fields_set}
    return Record(values, frozenset(named), row.missing_columns())


def upsert(session: Session, model: type[Model], key: str, records: Sequence[Record]) -> list[RowResult]:
    """Insert new rows, update changed ones in their named columns; return each row's result.

    `key` is the column of the natural key. A new row without a required column is refused.
    """
    if not records:
        return []
    target = table(model)
    columns = [target.c[name] for name in {"id", *(name for record in records for name in record.values)}]
    keys = [record.values[key] for record in records]
    stored = {
        row[key]: dict(row) for row in session.execute(select(*columns).where(target.c[key].in_(keys))).mappings()
    }
    inserts: dict[Any, dict[str, Any]] = {}
    updates: dict[int, dict[str, Any]] = {}
    results: list[RowResult] = []
    for record in records:
        natural_key = record.values[key]
        before = inserts.get(natural_key) or stored.get(natural_key)
        if before is None:
            if record.missing:
                results.append(refused(missing_columns(record.missing)))
                continue
            inserts[natural_key] = dict(record.values)
            results.append(RowResult(Outcome.ADDED, record.notes))
            continue
        changes = {name: record.values[name] for name in record.named if before[name] != record.values[name]}
        results.append(RowResult(Outcome.CHANGED if changes else Outcome.UNCHANGED, record.notes))
        before.update(changes)
        if changes and "id" in before:
            updates.setdefault(before["id"], {}).update(changes)
    if inserts:
        session.execute(insert(target), list(inserts.values()))
    # One statement for each set of columns: a concurrent change of another column is not overwritten.
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row_id, changes in updates.items():
        parameters = {"b_id": row_id} | {f"b_{name}": value for name, value in changes.items()}
        groups.setdefault(tuple(sorted(changes)), []).append(parameters)
    for names, rows in groups.items():
        values = {name: bindparam(f"b_{name}", type_=target.c[name].type) for name in names}
        session.connection().execute(update(target).where(target.c.id == bindparam("b_id")).values(values), rows)
    return results
