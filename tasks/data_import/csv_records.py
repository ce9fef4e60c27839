# SPDX-License-Identifier: Apache-2.0
"""Records of a CSV file, parsed strictly.

A quote that is left open makes rows into text, and a text with line breaks could be read as rows. So reading never
continues inside a record: it continues after a damaged record only when that record certainly ends with its line.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tasks.data_import.import_errors import Damage, ImportFileError
from tasks.data_import.text_files import TextFile

_DELIMITERS: Final = ",;\t"
_SEPARATOR_LINE: Final = re.compile(r'"?sep=([^\w\s"]|\t)"?[,;\t]*', re.IGNORECASE)
"""The first line that spreadsheets write and read: it names the delimiter."""
_QUOTED: Final = re.compile(r'"[^"]*"')
_QUOTES_ARE_DOUBLED: Final = "Correct the line: a quote inside a quoted value is doubled. Then import again."


@dataclass(frozen=True)
class CsvFile:
    """A CSV file with its header."""

    source: TextFile
    delimiter: str
    header_line: int
    header: tuple[str, ...]
    """Names of all columns, without white space around them; empty for a column without a name."""

    @property
    def columns(self) -> list[str]:
        """The names, in the file's order. A name may occur twice."""
        return [name for name in self.header if name]

    def check(self) -> None:
        """Parse the whole file. Raises `ImportFileError` for damage whose end cannot be found.

        After a record that may contain rows, texts may be read as rows and rows as texts. Then any irregular record
        refuses the file.
        """
        suspect = None
        for line, values in self._rows():
            if isinstance(values, Damage) and values.may_hide_rows:
                suspect = suspect or line
            elif suspect is not None and (isinstance(values, Damage) or self._is_irregular(values)):
                cause = f"a quote seems to be left open in line {suspect}, because line {line} is not a row"
                raise self.source.refused(suspect, cause, _QUOTES_ARE_DOUBLED)

    def records(self) -> Iterator[tuple[int, Any]]:
        """The number of each record's first line, with the record or `Damage`. Blank records are left out."""
        is_plain = all(self.header)
        width = len(self.header)
        for line, values in self._rows():
            if isinstance(values, Damage):
                yield line, values
            elif not any(value and not value.isspace() for value in values):
                continue
            elif is_plain and len(values) == width:
                yield line, dict(zip(self.header, values, strict=True))
            else:
                yield line, self._fit(values)

    def _is_irregular(self, values: list[str]) -> bool:
        """True for a record with another number of values, or with a value that begins or ends with a quote."""
        if not any(value.strip() for value in values):
            return False
        return isinstance(self._fit(values), Damage) or any(
            value.startswith('"') or value.endswith('"') for value in values
        )

    def _fit(self, values: list[str]) -> dict[str, str] | Damage:
        """The record of a row with columns that have no name, or with empty values after the last column."""
        width = len(self.header)
        named = max(index for index, name in enumerate(self.header, 1) if name)
        if not named <= len(values) <= width and (len(values) < named or any(v.strip() for v in values[width:])):
            return Damage(f"has {len(values)} values, but the header names {named} columns")
        for index, (name, value) in enumerate(zip(self.header, values, strict=False), 1):
            if not name and value.strip():
                return Damage(f"has a value in column {index}, which has no name in the header")
        return {name: value for name, value in zip(self.header, values, strict=False) if name}

    def _rows(self) -> Iterator[tuple[int, list[str] | Damage]]:
        lines = _Lines(self.source.lines(), self.header_line)
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        while True:
            before = reader.line_num
            first = self.header_line + before + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if reader.line_num != before + 1 or not self._ends_with_line(lines.last):
                    raise self._refused(first, self.header_line + reader.line_num, error) from None
                yield first, Damage(f"not valid CSV: {error}")
                continue
            if reader.line_num > before + 1 and self._contains_row(values):
                last = self.header_line + reader.line_num
                reason = f"lines {first} to {last} are one record; is a quote left open in line {first}?"
                yield first, Damage(reason, may_hide_rows=True)
            else:
                yield first, values

    def _contains_row(self, values: list[str]) -> bool:
        """True if an open quote may have made rows into text.

        A line inside a value has as many delimiters as a row, or the value ends with a delimiter: then its last quote may
        be the first one of another row's value.
        """
        delimiters = len(self.columns) - 1
        return any(
            value.endswith(self.delimiter) or any(line.count(self.delimiter) >= delimiters for line in lines[1:])
            for value in values
            if "\n" in value or "\r" in value
            for lines in [value.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
        )

    def _ends_with_line(self, line: str) -> bool:
        """True if an invalid record certainly ends with its line: no quote can be open at the end.

        The line has as many values as the header and an even number of quotes, and its last value has no quote, or ends
        with one.
        """
        text = line.rstrip("\r\n")
        values = next(csv.reader([text], delimiter=self.delimiter), [])
        last = text.rpartition(self.delimiter)[2]
        return len(values) == len(self.header) and text.count('"') % 2 == 0 and ('"' not in last or last.endswith('"'))

    def _refused(self, first: int, last: int, error: csv.Error) -> ImportFileError:
        if "unexpected end" in str(error):
            return self.source.refused(
                first, f"a quote that opens in line {first} is never closed", _QUOTES_ARE_DOUBLED
            )
        where = f"in line {last}" if last == first else f"in lines {first} to {last}"
        return self.source.refused(first, f"the record {where} is not valid CSV ({error})", _QUOTES_ARE_DOUBLED)


class _Lines:
    """An iterator over the lines after the header; it keeps the last one."""

    def __init__(self, lines: Iterator[str], skipped: int) -> None:
        self._lines = lines
        for _ in range(skipped):
            next(lines)
        self.last = ""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        self.last = next(self._lines)
        return self.last


def open_csv(source: TextFile) -> CsvFile:
    """Read the header. Raises `ImportFileError` when there is none, or it is not CSV."""
    # The text is in memory already. A limit would end a long field in its middle, and read its other lines as rows.
    csv.field_size_limit(max(csv.field_size_limit(), len(source.raw)))
    number, delimiter = 0, None
    for line in source.lines():
        number += 1
        text = line.strip("\r\n")
        if delimiter is None and (found := _SEPARATOR_LINE.fullmatch(text)):
            delimiter = found[1]
            continue
        if text.strip():
            break
    else:
        raise ImportFileError(f"{source.path} has no header.", "Export it as CSV with a header, or as JSON Lines.")
    if delimiter is None:
        delimiter = max(_DELIMITERS, key=_QUOTED.sub("", text).count)
    try:
        [values] = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    except (csv.Error, ValueError) as error:
        raise ImportFileError(
            f"Line {number} of {source.path}, the header, is not CSV: {error}.", "Correct it, then import again."
        ) from None
    header = [value.strip().strip("\ufeff").strip() for value in values]
    if not any(header):
        raise ImportFileError(f"{source.path} has a header without a name.", "Name the columns, then import again.")
    return CsvFile(source, delimiter, number, tuple(header))
