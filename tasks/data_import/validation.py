# SPDX-License-Identifier: Apache-2.0
"""Validation of one record: a row that can be stored, or the reason why it cannot."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from tasks.data_import.import_errors import Damage, printable
from tasks.data_import.mapping import ColumnMapping, is_empty
from tasks.data_import.row_models import KINDS, Row

MAX_REASON: Final = 500
"""Length of a reason, in characters. A file may contain names and values of any length."""


@dataclass(frozen=True)
class ValidRow:
    """A row that can be stored."""

    line: int
    row: Row
    shortened: tuple[str, ...] = ()
    """Columns whose text was too long and is stored shortened."""


@dataclass(frozen=True)
class InvalidRow:
    """A row that cannot be stored, and the reason."""

    line: int
    reason: str
    kind: str | None = None
    """Kind of the row; `None` if the row does not show it."""


def parse_row(
    kind: str | None, mapping: ColumnMapping, line: int, record: Any, forbidden: Collection[str] = ()
) -> ValidRow | InvalidRow:
    """Validate one record of `kind`, or of the kind that the record names."""
    if not isinstance(record, dict):
        return InvalidRow(line, record.reason if isinstance(record, Damage) else "not a JSON object", kind)
    try:
        model, values = _choose(kind, mapping.translate(record), forbidden)
    except ValueError as error:
        return InvalidRow(
            line, printable(str(error))[:MAX_REASON], error.kind if isinstance(error, _KindError) else kind
        )
    shortened: list[str] = []
    try:
        row = model.model_validate(_with_defaults(model, values), context=shortened)
    except ValidationError as error:
        found = [f"{e['loc'][0] if e['loc'] else 'row'}: {e['msg']}" for e in error.errors(include_input=False)]
        return InvalidRow(line, printable("; ".join(found))[:MAX_REASON], model.kind)
    return ValidRow(line, row, tuple(shortened))


class _KindError(ValueError):
    """A record of a kind that is not imported."""

    def __init__(self, reason: str, kind: str | None) -> None:
        super().__init__(reason)
        self.kind = kind


def _choose(kind: str | None, values: dict[str, Any], forbidden: Collection[str]) -> tuple[type[Row], dict[str, Any]]:
    """The model of the record and its values without `kind`. Raises `_KindError`."""
    named = values.pop("kind", None)
    chosen = kind if is_empty(named) else named
    model = KINDS.get(chosen) if isinstance(chosen, str) else None
    if model is None:
        shown = f"unknown kind {chosen[:40]!r}" if isinstance(chosen, str) else "no kind"
        raise _KindError(f"{shown}; the kinds are {', '.join(KINDS)}", kind)
    if kind is not None and model.kind != kind:
        raise _KindError(f"is a row of {model.kind}, in an import of {kind}", model.kind)
    if model.kind in forbidden:
        raise _KindError(f"{model.kind} are imported only with --kind {model.kind} or --allow {model.kind}", model.kind)
    return model, values


def _with_defaults(model: type[Row], record: Mapping[str, Any]) -> dict[str, Any]:
    """The record, with the column's default for an empty value; a required column stays empty and is invalid."""
    fields, required = model.model_fields, model.required_columns()
    return {
        name: fields[name].get_default(call_default_factory=True)
        if is_empty(value) and name in fields and name not in required
        else value
        for name, value in record.items()
    }
