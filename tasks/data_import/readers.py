# SPDX-License-Identifier: Apache-2.0
"""Read a CSV or JSON Lines file into rows. A mapping translates another system's columns and values."""

import csv
import difflib
import io
import json
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tasks.data_import.row_models import KINDS, Row

MAX_REASON: Final = 500
"""Length of a reason, in characters. A file may contain names and values of any length."""


class ImportFileError(Exception):
    """A file or a mapping that cannot be imported. The text states the cause, and the next step."""

    def __init__(self, cause: str, next_step: str) -> None:
        super().__init__(_printable(f"{cause} Nothing was imported. {next_step}"))


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
    kind: str | None = None
    """Kind of the row; `None` if the row does not show it."""


@dataclass(frozen=True)
class Damage:
    """The reason why a line has no record."""

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
        translated: dict[str, Any] = dict(self.constants)
        for source, value in record.items():
            if self._is_kept(source):
                name = self.columns.get(source, source)
                values = self.values.get(name, {})
                found = values.get(str(value), value) if values and not isinstance(value, list | dict) else value
                # An empty value leaves the constant, or the value of another column with the same name.
                if name not in translated or not _is_empty(found):
                    translated[name] = found
        return translated

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


RESTRICTED_KINDS: Final = frozenset({"stations", "printers"})
"""Kinds that decide which station is trusted and where slips print: a file brings them only when they are named."""


def read(
    path: Path, kind: str | None, mapping: ColumnMapping, allowed: Collection[str] = ()
) -> Iterator[ValidRow | InvalidRow]:
    """Yield the rows of the file, in order. Raises `ImportFileError` before the first row, or not at all.

    With `kind`, rows of other kinds are invalid. Without, `RESTRICTED_KINDS` are invalid unless `allowed` names them.
    """
    text = _read_text(path)
    header, records = _read_json_lines(text, kind) if text.lstrip().startswith("{") else _read_csv(path, text)
    columns = mapping.translate_header(header)
    chosen = kind or _guess_kind(columns)
    if chosen is not None:
        _check_columns(path, chosen, columns)
    forbidden = RESTRICTED_KINDS - set(allowed) if kind is None else frozenset()
    return (parse_row(chosen, mapping, line, record, forbidden) for line, record in records)


def parse_row(
    kind: str | None, mapping: ColumnMapping, line: int, record: Any, forbidden: Collection[str] = ()
) -> ValidRow | InvalidRow:
    """Validate one record of `kind`, or of the kind that the record names."""
    if not isinstance(record, dict):
        return InvalidRow(line, record.reason if isinstance(record, Damage) else "not a JSON object", kind)
    translated = mapping.translate(record)
    named = translated.pop("kind", None)
    chosen = kind if _is_empty(named) else named
    model = KINDS.get(chosen) if isinstance(chosen, str) else None
    if model is None:
        shown = f"unknown kind {chosen[:40]!r}" if isinstance(chosen, str) else "no kind"
        return InvalidRow(line, f"{shown}; the kinds are {', '.join(KINDS)}", kind)
    if kind is not None and model.kind != kind:
        return InvalidRow(line, f"is a row of {model.kind}, in an import of {kind}", model.kind)
    if model.kind in forbidden:
        return InvalidRow(
            line, f"{model.kind} are imported only with --kind {model.kind} or --allow {model.kind}", model.kind
        )
    try:
        return ValidRow(line, model.model_validate(_with_defaults(model, translated)))
    except ValidationError as error:
        found = [f"{e['loc'][0] if e['loc'] else 'row'}: {e['msg']}" for e in error.errors(include_input=False)]
        return InvalidRow(line, _printable("; ".join(found))[:MAX_REASON], model.kind)


def _with_defaults(model: type[Row], record: Mapping[str, Any]) -> dict[str, Any]:
    """The record, with the column's default for an empty value; a required column stays empty and is invalid."""
    fields, required = model.model_fields, model.required_columns()
    return {
        name: fields[name].get_default(call_default_factory=True)
        if _is_empty(value) and name in fields and name not in required
        else value
        for name, value in record.items()
    }


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _printable(text: str) -> str:
    """The text with escapes for surrogates, which JSON may contain and no output encodes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


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


def _read_csv(path: Path, text: str) -> tuple[list[str], Iterator[tuple[int, Any]]]:
    """The header, and the number of each record's first line with the record or `Damage`."""
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    # The text is in memory already. A limit would end a long field in its middle, and read its other lines as rows.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise ImportFileError(
            f"The first line of {path} is not CSV: {error}.", "Correct it, then import again."
        ) from None

    def records() -> Iterator[tuple[int, Any]]:
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, Damage(f"not valid CSV: {error}")
                continue
            if not any(value.strip() for value in values):
                continue
            if len(values) != len(names):
                yield line, Damage(f"has {len(values)} values, but the header names {len(names)} columns")
                continue
            yield line, dict(zip(names, values, strict=True))

    return names, records()


def _read_json_lines(text: str, kind: str | None) -> tuple[list[str], Iterator[tuple[int, Any]]]:
    """The keys of the first object that may be of `kind`, and each line's number with its record or `Damage`."""

    def records() -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(io.StringIO(text, newline=""), 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    yield number, Damage(f"not valid JSON: {error.msg}")
                except RecursionError:
                    yield number, Damage("not valid JSON: nested too deep")
                except ValueError:
                    yield number, Damage("not valid JSON: a number has too many digits")

    objects = (record for _, record in records() if isinstance(record, dict))
    first = next((record for record in objects if kind is None or record.get("kind", kind) == kind), {})
    return list(first), records()


def _guess_kind(columns: set[str]) -> str | None:
    """The only kind that these columns fit; `None` when each row names its kind. Raises `ImportFileError`."""
    if "kind" in columns:
        return None
    fitting = [
        kind
        for kind, model in KINDS.items()
        if columns <= set(model.model_fields) and model.required_columns() <= columns
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
