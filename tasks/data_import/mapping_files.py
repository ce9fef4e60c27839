# SPDX-License-Identifier: Apache-2.0
"""Mapping files in TOML: those of users, and those that bookdrop contains."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from tasks.data_import.date_formats import DateFormat, parse_formats
from tasks.data_import.import_errors import ImportFileError
from tasks.data_import.mapping import ColumnMapping, fold
from tasks.data_import.row_models import DATE_COLUMNS, KINDS

SHIPPED: Final = ("alma",)
"""Names of the mappings that bookdrop contains."""

MAX_MAPPING_KB: Final = 1000
_TABLES: Final = ("columns", "optional_columns", "values", "constants", "dates")
_CORRECT: Final = "Correct the mapping, then import again."


def read_mapping(path: Path, kind: str | None = None) -> ColumnMapping:
    """Read a mapping: a shipped one by its name, or a file. Raises `ImportFileError`.

    Tables at the top hold for every kind; those under the name of a kind for rows of that kind. `kind` is that of the
    rows, if the user names it.
    """
    tables = _read_tables(str(path), _load(path), may_extend=True)
    sections = [name for name in tables if name in KINDS]
    if sections and kind not in sections and (kind is None or not set(tables) & set(_TABLES)):
        raise ImportFileError(
            f"The mapping {path} has tables for {', '.join(sections)}, and none for {kind}."
            if kind
            else f"The mapping {path} has tables for {', '.join(sections)}.",
            f"Name the kind of the rows with --kind ({', '.join(sections)}).",
        )
    merged = _merge({name: tables[name] for name in _TABLES if name in tables}, tables.get(kind or "", {}))
    return _checked(str(path), merged, kind)


def adjust(
    mapping: ColumnMapping, kind: str | None, constants: Sequence[str], date_format: str | None
) -> ColumnMapping:
    """The mapping with constants (each `COLUMN=VALUE`) and a date format of the command. Raises `ImportFileError`."""
    added = {}
    for constant in constants:
        name, equals, value = constant.partition("=")
        if not equals or name not in _known_columns(kind):
            raise ImportFileError(
                f"{constant[:100]!r} is not a COLUMN=VALUE{f' of {kind}' if kind else ''}.",
                f"Columns: {', '.join(sorted(_known_columns(kind)))}.",
            )
        added[name] = value
    try:
        form = mapping.date_format if date_format is None else parse_formats(date_format)
    except ValueError as error:
        raise ImportFileError(f"{error}.", "Correct --date-format, then import again.") from None
    return replace(mapping, constants={**mapping.constants, **added}, date_format=form)


def _known_columns(kind: str | None) -> set[str]:
    models: tuple[type[BaseModel], ...] = (KINDS[kind],) if kind else tuple(KINDS.values())
    return {name for model in models for name in model.model_fields} | {"kind"}


def _load(path: Path) -> dict[str, Any]:
    try:
        if str(path) in SHIPPED:
            content = (files("tasks.data_import") / "mappings" / f"{path}.toml").read_text(encoding="utf-8")
        else:
            with path.open("rb") as file:
                raw = file.read(MAX_MAPPING_KB * 1000 + 1)
            if len(raw) > MAX_MAPPING_KB * 1000:
                raise ImportFileError(f"The mapping {path} has more than {MAX_MAPPING_KB} kB.", _CORRECT)
            content = raw.decode("utf-8-sig")
        return tomllib.loads(content.replace("\r\n", "\n"))
    except FileNotFoundError:
        raise ImportFileError(
            f"There is no mapping {path}.", f"Name a TOML file, or a mapping of bookdrop: {', '.join(SHIPPED)}."
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ImportFileError(f"The mapping {path} cannot be read as TOML: {error}.", _CORRECT) from None


def _read_tables(name: str, content: dict[str, Any], *, may_extend: bool) -> dict[str, Any]:
    """The tables of a mapping, with those of the mapping that it extends."""
    extended = content.pop("extends", None) if may_extend else None
    if extended is not None and extended not in SHIPPED:
        raise ImportFileError(
            f"The mapping {name} extends {extended!r}.",
            f"A mapping may extend a mapping of bookdrop: {', '.join(SHIPPED)}.",
        )
    for where, tables in (("", content), *((kind, content[kind]) for kind in KINDS if kind in content)):
        if not isinstance(tables, dict):
            raise ImportFileError(f"The mapping {name} has a {where} that is not a table.", _CORRECT)
        known = set(_TABLES) | (set() if where else set(KINDS))
        for table, value in tables.items():
            if table not in known:
                raise ImportFileError(
                    f"The mapping {name} has an unknown table [{where + '.' if where else ''}{table}].",
                    f"A mapping may have the tables {', '.join(_TABLES)}, also under the name of a kind.",
                )
            if not isinstance(value, dict):
                raise ImportFileError(f"The mapping {name} has a {table} that is not a table.", _CORRECT)
    if extended is None:
        return content
    return _merge(_read_tables(extended, _load(Path(extended)), may_extend=False), content)


def _merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables; `new` replaces single entries, at every depth."""
    merged = dict(old)
    for name, value in new.items():
        before = merged.get(name)
        merged[name] = _merge(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def _checked(path: str, tables: dict[str, Any], kind: str | None) -> ColumnMapping:
    known = _known_columns(kind)
    columns = _texts(path, "columns", tables)
    optional = _texts(path, "optional_columns", tables)
    constants = _constants(path, tables)
    for table, names in (("columns", columns), ("optional_columns", optional)):
        _check_targets(path, table, names, known)
    _check_doubled(path, columns)
    values = {}
    for name, entries in tables.get("values", {}).items():
        if not isinstance(entries, dict):
            raise ImportFileError(f"The mapping {path} has values.{name} that is not a table.", _CORRECT)
        values[name] = _texts(path, f"values.{name}", {f"values.{name}": entries})
    dates = _dates(path, tables, known)
    date_format = dates.pop("format", None)
    for table, given in (("values", list(values)), ("constants", list(constants))):
        for name in given:
            if name not in known:
                raise ImportFileError(
                    f"The mapping {path} has {table} for {name!r}, which is not a column of {kind or 'bookdrop'}.",
                    f"Columns: {', '.join(sorted(known))}.",
                )
    return ColumnMapping(columns, values, constants, optional, dates, date_format)


def _check_targets(path: str, table: str, names: Mapping[str, str], known: set[str]) -> None:
    for source, name in names.items():
        if name not in known:
            reverse = source in known
            raise ImportFileError(
                f"The mapping {path} maps {source!r} to {name!r}, which is not a column of bookdrop.",
                f"In [{table}] the file's column is on the left and bookdrop's on the right: {name!r} = {source!r}."
                if reverse
                else f"Columns: {', '.join(sorted(known))}.",
            )


def _check_doubled(path: str, columns: Mapping[str, str]) -> None:
    sources: dict[str, str] = {}
    for source, name in columns.items():
        if sources.setdefault(name, source) != source:
            raise ImportFileError(
                f"The mapping {path} maps both {sources[name]!r} and {source!r} to {name}.",
                "Remove one of them, or name both in [optional_columns] if a file has only one.",
            )


def _texts(path: str, table: str, tables: Mapping[str, Any]) -> dict[str, str]:
    """A table of texts. Raises `ImportFileError` for another value, and for two names that differ in case only."""
    found: dict[str, str] = {}
    folded: dict[str, str] = {}
    for name, value in tables.get(table, {}).items():
        if not isinstance(value, str):
            raise ImportFileError(
                f"The mapping {path} has a value of {name!r} in [{table}] that is not a text.", _CORRECT
            )
        if fold(name) in folded and found[folded[fold(name)]] != value:
            raise ImportFileError(
                f"The mapping {path} has {folded[fold(name)]!r} and {name!r} in [{table}], which differ in case only.",
                _CORRECT,
            )
        folded[fold(name)] = name
        found[name] = value
    return found


def _constants(path: str, tables: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, value in tables.get("constants", {}).items():
        if not isinstance(value, str | int | float | bool | datetime):
            raise ImportFileError(f"The mapping {path} has a constant {name!r} that is not a text.", _CORRECT)
        found[name] = value if isinstance(value, str) else str(value)
    return found


def _dates(path: str, tables: Mapping[str, Any], known: set[str]) -> dict[str, DateFormat]:
    """Formats by column; `format` is that of every column of dates without a separate one."""
    formats: dict[str, DateFormat] = {}
    for name, value in tables.get("dates", {}).items():
        if name != "format" and name not in DATE_COLUMNS & known:
            raise ImportFileError(
                f"The mapping {path} has a date format for {name!r}, which is not a column of dates.",
                f"Columns of dates: {', '.join(sorted(DATE_COLUMNS & known))}; format is that of all.",
            )
        try:
            formats[name] = parse_formats(value)
        except ValueError as error:
            raise ImportFileError(f"The mapping {path}: dates.{name} {error}.", _CORRECT) from None
    return formats
