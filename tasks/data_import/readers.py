# SPDX-License-Identifier: Apache-2.0
"""Read a CSV or JSON Lines file into rows. A mapping translates another system's columns and values."""

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


class ImportFileError(Exception):
    """A file or a mapping that cannot be imported. The text states the cause, and the next step."""

    def __init__(self, cause: str, next_step: str) -> None:
        super().__init__(f"{cause} Nothing was imported. {next_step}")


@dataclass(frozen=True)
class ValidRow:
    """A row that can be stored."""

    line: int
    row: Row


@dataclass(frozen=True)
class InvalidRow:
    """A row that cannot be stored, and the reason."""

    line: int
    reason: str


@dataclass(frozen=True)
class ColumnMapping:
    """Translation of another system's columns and values into those of bookdrop."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of the other system to column of bookdrop."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For a column of bookdrop: the other system's value to bookdrop's."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Values of columns that the file does not have."""

    def translate(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record in bookdrop's columns. A mapping with `columns` drops every column that it does not name."""
        named = {self.columns.get(name, name): value for name, value in record.items() if self._is_kept(name)}
        return {**self.constants, **{name: self.values.get(name, {}).get(str(v), v) for name, v in named.items()}}

    def translate_header(self, header: Iterable[str]) -> set[str]:
        """The columns of a file as columns of bookdrop."""
        return {self.columns.get(name, name) for name in header if self._is_kept(name)} | set(self.constants)

    def _is_kept(self, name: str) -> bool:
        return not self.columns or name in self.columns or name == "kind"


def read_mapping(path: Path) -> ColumnMapping:
    """Read a mapping file: tables `[columns]`, `[values.<column>]`, `[constants]`. Raises `ImportFileError`."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ImportFileError(
            f"The mapping {path} cannot be read as TOML: {error}.", "Correct the mapping, then import again."
        ) from None
    unknown = set(content) - {"columns", "values", "constants"}
    if unknown:
        raise ImportFileError(
            f"The mapping {path} has an unknown table [{min(unknown)}].",
            "A mapping may have the tables columns, values and constants.",
        )
    return ColumnMapping(content.get("columns", {}), content.get("values", {}), content.get("constants", {}))


def read(path: Path, kind: str | None, mapping: ColumnMapping) -> Iterator[ValidRow | InvalidRow]:
    """Yield the rows of the file, in order. Raises `ImportFileError` before the first row, or not at all."""
    text = _read_text(path)
    header, records = _read_json_lines(text) if text.lstrip().startswith("{") else _read_csv(text)
    columns = mapping.translate_header(header)
    chosen = kind or _guess_kind(columns)
    if chosen is not None:
        _check_columns(path, chosen, columns)
    return (parse_row(chosen, mapping, line, record) for line, record in records)


def parse_row(kind: str | None, mapping: ColumnMapping, line: int, record: Any) -> ValidRow | InvalidRow:
    """Validate one record of `kind`, or of the kind that the record names. A text is the reason of an invalid row."""
    if not isinstance(record, dict):
        return InvalidRow(line, record if isinstance(record, str) else "not a JSON object")
    translated = mapping.translate(record)
    chosen = str(translated.pop("kind", kind))
    model = KINDS.get(chosen)
    if model is None:
        return InvalidRow(line, f"unknown kind {chosen!r}; the kinds are {', '.join(KINDS)}")
    try:
        return ValidRow(line, model.model_validate(translated))
    except ValidationError as error:
        found = [f"{e['loc'][0] if e['loc'] else 'row'}: {e['msg']}" for e in error.errors(include_input=False)]
        return InvalidRow(line, "; ".join(found))


def _read_text(path: Path) -> str:
    export_again = "Export it as CSV in UTF-8, or as JSON Lines."
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ImportFileError(
            f"{path} cannot be read: {error.strerror}.", "Check the path and the file's permissions."
        ) from None
    if not raw.strip():
        raise ImportFileError(f"{path} is empty.", export_again)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ImportFileError(f"{path} is not a text in UTF-8.", export_again) from None
    if "\x00" in text or raw.startswith(b"%PDF"):
        raise ImportFileError(f"{path} is not a text file.", export_again)
    return text


def _read_csv(text: str) -> tuple[list[str], Iterator[tuple[int, Any]]]:
    """The header, and each line's number with its record, or with the reason why it has none."""
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    names = [name.strip() for name in next(reader)]

    def records() -> Iterator[tuple[int, Any]]:
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if len(values) != len(names):
                yield reader.line_num, f"has {len(values)} values, but the header names {len(names)} columns"
                continue
            # An empty value leaves the column's default.
            yield reader.line_num, {name: value for name, value in zip(names, values, strict=True) if value.strip()}

    return names, records()


def _read_json_lines(text: str) -> tuple[list[str], Iterator[tuple[int, Any]]]:
    """The first object's keys, and each line's number with its record, or with the reason why it has none."""

    def records() -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    yield number, f"not valid JSON: {error.msg}"

    first = next((record for _, record in records() if isinstance(record, dict)), {})
    return list(first), records()


def _guess_kind(columns: set[str]) -> str | None:
    """The only kind that these columns fit; `None` when each row names its kind. Raises `ImportFileError`."""
    if "kind" in columns:
        return None
    fitting = [
        kind for kind, model in KINDS.items() if columns <= set(model.model_fields) and _required(model) <= columns
    ]
    if len(fitting) == 1:
        return fitting[0]
    best = max(KINDS, key=lambda kind: len(columns & set(KINDS[kind].model_fields)))
    hint = f"The columns are most like those of {best}. " if columns & set(KINDS[best].model_fields) else ""
    raise ImportFileError(
        f"The columns {', '.join(sorted(map(str, columns)))} do not show the kind of the rows.",
        f"{hint}Name the kind with --kind ({', '.join(KINDS)}), or map the columns with --mapping.",
    )


def _check_columns(path: Path, kind: str, columns: set[str]) -> None:
    known = set(KINDS[kind].model_fields) | {"kind"}
    for name in sorted(columns):
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise ImportFileError(
                f"{path} has a column {name!r} that {kind} do not have.",
                f"Did you mean {near[0]}?" if near else f"Columns of {kind}: {', '.join(sorted(known - {'kind'}))}.",
            )


def _required(model: type[Row]) -> set[str]:
    return {name for name, info in model.model_fields.items() if info.is_required()}
