# SPDX-License-Identifier: Apache-2.0
"""Translation of another system's columns, values and dates into those of bookdrop."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Final

from tasks.data_import.date_formats import DateFormat
from tasks.data_import.import_errors import ImportFileError
from tasks.data_import.row_models import DATE_COLUMNS

_DASHES: Final = str.maketrans("\u2010\u2011\u2012\u2013\u2014", "-----")


@lru_cache(maxsize=65536)
def fold(text: str) -> str:
    """A name or value for comparison: without regard to case, white space and the kind of dash."""
    return " ".join(text.translate(_DASHES).strip("\ufeff").split()).casefold()


@dataclass(frozen=True)
class ColumnMapping:
    """Translation of another system's columns and values into those of bookdrop. By default it changes nothing."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of the file to column of bookdrop. The file must have each."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For a column of bookdrop: the other system's value to bookdrop's."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Values of columns of bookdrop that the file does not have, or that are empty."""
    optional_columns: Mapping[str, str] = field(default_factory=dict)
    """As `columns`, for columns that a file may lack: other names, or further columns."""
    dates: Mapping[str, DateFormat] = field(default_factory=dict)
    """For a column of bookdrop: the format of its dates."""
    date_format: DateFormat | None = None
    """Format of the dates of all other columns. Without a format, dates are ISO 8601."""

    def translate(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record in bookdrop's columns. A mapping that names columns drops every other column.

        Raises `ValueError` for a date in another format than the column's.
        """
        translated: dict[str, Any] = dict(self.constants)
        for source, value in record.items():
            name = self.target(source)
            if name is None:
                continue
            # An empty value leaves the constant.
            if name not in translated or not is_empty(value):
                translated[name] = self._value(name, value)
        return translated

    def target(self, source: str) -> str | None:
        """The column of bookdrop that the file's column `source` becomes; `None` for a column that is dropped."""
        if not self._targets:
            return source
        found = self._targets.get(fold(source))
        return source if found is None and source == "kind" else found

    def check(self, file: object, header: Sequence[str]) -> None:
        """Compare the mapping with the columns of a file. Raises `ImportFileError` for a mapping that does not fit."""
        present = {fold(name) for name in header}
        for source in self.columns:
            if fold(source) not in present:
                near = difflib.get_close_matches(source, header, n=1)
                raise ImportFileError(
                    f"The mapping names a column {source!r} that {file} does not have.",
                    f"Did you mean {near[0]!r}?" if near else f"Its columns: {', '.join(header)[:500]}.",
                )
        sources: dict[str, str] = {}
        for source in header:
            name = self.target(source)
            if name is not None and name in sources:
                twice = fold(sources[name]) == fold(source)
                raise ImportFileError(
                    f"{file} has the column {source!r} twice."
                    if twice
                    else f"The columns {sources[name]!r} and {source!r} of {file} both become {name}.",
                    "Remove one of them from the file." if twice else "Name one of them in the mapping.",
                )
            if name is not None:
                sources[name] = source
        translated = set(self._targets.values()) | set(sources)
        for table, names in (("values", self.values), ("dates", self.dates)):
            for name in names:
                if name not in translated:
                    raise ImportFileError(
                        f"The mapping has {table} for {name!r}, but no column of {file} becomes {name!r}.",
                        "Correct the name, or map a column to it.",
                    )

    def translate_header(self, header: Iterable[str]) -> set[str]:
        """The columns of a file as columns of bookdrop."""
        return {name for source in header if (name := self.target(source)) is not None} | set(self.constants)

    @cached_property
    def _targets(self) -> dict[str, str]:
        both = {**self.optional_columns, **self.columns}
        return {fold(source): name for source, name in both.items()}

    @cached_property
    def _values(self) -> dict[str, dict[str, str]]:
        return {name: {fold(old): new for old, new in table.items()} for name, table in self.values.items()}

    def _value(self, name: str, value: Any) -> Any:
        if name in self._values and isinstance(value, str | int | float):
            value = self._values[name].get(fold(str(value)), value)
        form = self.dates.get(name, self.date_format) if name in DATE_COLUMNS else None
        if form is not None and isinstance(value, str) and not is_empty(value):
            try:
                return form.parse(value.strip())
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return value


def is_empty(value: object) -> bool:
    """True for nothing, and for a text of white space."""
    return value is None or (isinstance(value, str) and not value.strip())
