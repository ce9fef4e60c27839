# SPDX-License-Identifier: Apache-2.0
"""From a file to rows: CSV or JSON Lines, our columns or another system's through a mapping."""

import csv
import difflib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.data_import.row_models import KINDS, Row


class WrongFileError(Exception):
    """The file as a whole cannot be imported. The text says why and what would be right."""


@dataclass(frozen=True)
class Good:
    """A row that can be stored."""

    line: int
    row: Row


@dataclass(frozen=True)
class Bad:
    """A row that cannot, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class ColumnMapping:
    """How another system's columns and words become ours."""

    columns: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)

    def ours(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record in our columns; with a mapping, columns that it does not name are left out."""
        named = {self.columns.get(name, name): value for name, value in record.items() if self._keeps(name)}
        return {**self.constants, **{name: self.values.get(name, {}).get(str(v), v) for name, v in named.items()}}

    def our_columns(self, header: Iterable[str]) -> set[str]:
        """The columns of a file, as ours."""
        return {self.columns.get(name, name) for name in header if self._keeps(name)} | set(self.constants)

    def _keeps(self, name: str) -> bool:
        return not self.columns or name in self.columns or name == "kind"


def read_mapping(path: Path) -> ColumnMapping:
    """Read a mapping file: tables `[columns]`, `[values.<column>]`, `[constants]`. Raises `WrongFileError`."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise WrongFileError(f"The mapping {path} cannot be read as TOML: {error}") from None
    unknown = set(content) - {"columns", "values", "constants"}
    if unknown:
        raise WrongFileError(
            f"The mapping {path} has a table [{min(unknown)}]; it may have columns, values, constants."
        )
    return ColumnMapping(content.get("columns", {}), content.get("values", {}), content.get("constants", {}))


def read(path: Path, kind: str | None, mapping: ColumnMapping) -> Iterator[Good | Bad]:
    """The rows of the file, in order. Raises `WrongFileError` before the first row, or not at all."""
    text = _text_of(path)
    header, records = _json_lines(text) if text.lstrip().startswith("{") else _csv(text)
    columns = mapping.our_columns(header)
    chosen = kind or _guess(columns)
    if chosen is not None:
        _check_columns(path, chosen, columns)
    return (row_of(chosen, mapping, line, record) for line, record in records)


def row_of(kind: str | None, mapping: ColumnMapping, line: int, record: Any) -> Good | Bad:
    """One record of `kind` (or of the kind it names itself), checked."""
    if not isinstance(record, dict):
        return Bad(line, str(record) if isinstance(record, str) else "is no JSON object")
    ours = mapping.ours(record)
    wanted = str(ours.pop("kind", kind))
    model = KINDS.get(wanted)
    if model is None:
        return Bad(line, f"kind {wanted!r} is not known; known: {', '.join(KINDS)}")
    try:
        return Good(line, model.model_validate(ours))
    except ValidationError as error:
        found = [f"{e['loc'][0] if e['loc'] else 'row'}: {e['msg']}" for e in error.errors(include_input=False)]
        return Bad(line, "; ".join(found))


def _text_of(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise WrongFileError(f"{path} cannot be read: {error.strerror}") from None
    if not raw.strip():
        raise WrongFileError(f"{path} is empty.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise WrongFileError(f"{path} is no text in UTF-8. Export it as CSV in UTF-8, or as JSON Lines.") from None
    if "\x00" in text or raw.startswith(b"%PDF"):
        raise WrongFileError(f"{path} is no text file. Export it as CSV in UTF-8, or as JSON Lines.")
    return text


def _csv(text: str) -> tuple[list[str], Iterator[tuple[int, Any]]]:
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    names = [name.strip() for name in next(reader)]

    def records() -> Iterator[tuple[int, Any]]:
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if len(values) != len(names):
                yield reader.line_num, f"has {len(values)} values, the header names {len(names)} columns"
                continue
            # An empty value says nothing: the column's default holds.
            yield reader.line_num, {name: value for name, value in zip(names, values, strict=True) if value.strip()}

    return names, records()


def _json_lines(text: str) -> tuple[list[str], Iterator[tuple[int, Any]]]:
    def records() -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    yield number, f"is no JSON: {error.msg}"

    first = next((record for _, record in records() if isinstance(record, dict)), {})
    return list(first), records()


def _guess(columns: set[str]) -> str | None:
    """The one kind that these columns can mean. Raises `WrongFileError` when there is not one."""
    if "kind" in columns:
        return None
    fitting = [
        kind for kind, model in KINDS.items() if columns <= set(model.model_fields) and _required(model) <= columns
    ]
    if len(fitting) == 1:
        return fitting[0]
    best = max(KINDS, key=lambda kind: len(columns & set(KINDS[kind].model_fields)))
    hint = f" The columns are most like those of {best}." if columns & set(KINDS[best].model_fields) else ""
    raise WrongFileError(
        f"It is not clear what the rows are: columns {', '.join(sorted(map(str, columns)))}.{hint}"
        f" Say it with --kind ({', '.join(KINDS)}), or map the columns with --mapping."
    )


def _check_columns(path: Path, kind: str, columns: set[str]) -> None:
    known = set(KINDS[kind].model_fields) | {"kind"}
    for name in sorted(columns):
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            advice = (
                f" Did you mean {near[0]}?" if near else f" Columns of {kind}: {', '.join(sorted(known - {'kind'}))}."
            )
            raise WrongFileError(f"{path} has a column {name!r} that {kind} do not have.{advice} Nothing was imported.")


def _required(model: type[Row]) -> set[str]:
    return {name for name, field_ in model.model_fields.items() if field_.is_required()}
