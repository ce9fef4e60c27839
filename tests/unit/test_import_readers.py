# SPDX-License-Identifier: Apache-2.0
"""Any bytes become rows that add up, or an error in words; a correct CSV file gives each of its records once."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.data_import import text_files
from tasks.data_import.date_formats import parse_formats
from tasks.data_import.import_errors import ImportFileError
from tasks.data_import.mapping import ColumnMapping
from tasks.data_import.mapping_files import read_mapping
from tasks.data_import.readers import read
from tasks.data_import.validation import InvalidRow, ValidRow

FILES = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows_or_words(reading):
    """The rows of a file; none for a file that is refused, whose text states that nothing was imported."""
    words = "Nothing was imported."
    rows = []
    try:
        rows = list(reading())
    except ImportFileError as error:
        words = str(error)

    assert "Nothing was imported." in words
    return rows


PIECES = st.sampled_from(
    ['"', '""', ",", ";", "\t", "\n", "\r\n", "\r", "code", "name", "DE-1", "sep=;", "[", "]", "{", "}", ":", "\ufeff", "\x00",
     "\u2028", "\x85", "\x0b", "é", "|", "=", "'", '{"code": "DE-1", "name": "N"}', "code,name\n", " "]
)  # fmt: skip
ENCODED = st.builds(
    lambda pieces, encoding: "".join(pieces).encode(encoding, "replace"),
    st.lists(PIECES, max_size=30),
    st.sampled_from(["utf-8", "utf-16", "utf-16-le", "windows-1252", "utf-32"]),
)
HEADED = st.builds(lambda rest: b"code,name\n" + rest, ENCODED | st.binary(max_size=60))


@FILES
@given(raw=st.binary(max_size=80) | ENCODED | HEADED, kind=st.sampled_from([None, "partners", "items", "loans"]),
       encoding=st.sampled_from([None, *text_files.ENCODINGS]))  # fmt: skip
@example(raw=b"code,name\n" + b'"' * 5, kind="partners", encoding=None)
@example(raw=b"[", kind=None, encoding=None)
@example(raw=b"[]", kind="partners", encoding=None)
@example(raw=b"\xef\xbb\xbf", kind="partners", encoding=None)
@example(raw=b"\xff\xfe", kind="partners", encoding=None)
def test_any_bytes_are_rows_or_an_error_in_words(tmp_path, raw, kind, encoding):
    """No traceback, and each row has a line of the file, in order."""
    path = tmp_path / "rows"
    path.write_bytes(raw)
    rows = rows_or_words(lambda: read(path, kind, ColumnMapping(), encoding=encoding))

    lines = [row.line for row in rows]
    assert lines == sorted(lines)
    assert all(isinstance(row, ValidRow) or (isinstance(row, InvalidRow) and row.reason) for row in rows)


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12) | st.sampled_from(
    ["a\nb", "a,b\nc,d", 'a "q" b', "\n\n", '"', "a\r\nb,c,d\ne"]
)


@FILES
@given(records=st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=8), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
       end=st.sampled_from(["\n", "\r\n"]))  # fmt: skip
def test_each_record_of_a_correct_file_is_one_row(tmp_path, records, quoting, end):
    """Values with quotes, delimiters and line breaks neither end a record nor start one."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting, lineterminator=end)
    writer.writerows([["code", "name", "delivery_code"], *records])
    path = tmp_path / "rows"
    path.write_bytes(text.getvalue().encode())

    rows = rows_or_words(lambda: read(path, "partners", ColumnMapping()))

    may_hide_rows = any(
        cell.endswith(",") or line.count(",") >= 2
        for record in records
        for cell in record
        for line in cell.replace("\r", "\n").split("\n")[1:]
    )
    expected = sum(1 for record in records if any(cell.strip() for cell in record))
    assert len(rows) == expected or (may_hide_rows and not rows)


@FILES
@given(records=st.lists(st.tuples(st.text("abc \n,", max_size=8), st.text("xyz", min_size=1, max_size=3)), min_size=2, max_size=8),
       at=st.integers(0, 7))  # fmt: skip
def test_quote_left_open_invents_no_row(tmp_path, records, at):
    """Without one closing quote: every valid row is a record of the correct file, or the file is refused."""
    codes = [f"DE-{number}" for number in range(len(records))]
    lines = [f'{code},"{name}",{other}\n' for code, (name, other) in zip(codes, records, strict=True)]
    broken = at % len(lines)
    lines[broken] = lines[broken].replace('",', ",", 1)
    path = tmp_path / "rows"
    path.write_text("code,name,delivery_code\n" + "".join(lines), encoding="utf-8", newline="")

    try:
        rows = list(read(path, "partners", ColumnMapping()))
    except ImportFileError:
        return
    assert {row.row.model_dump()["code"] for row in rows if isinstance(row, ValidRow)} <= set(codes) - {codes[broken]}


def test_file_over_the_limit_is_refused(tmp_path, monkeypatch):
    """The limit of the size is stated, with the next step."""
    monkeypatch.setattr(text_files, "MAX_FILE_MB", 1)
    path = tmp_path / "rows"
    path.write_bytes(b"code,name\n" + b"x" * 1_000_001)

    with pytest.raises(ImportFileError, match=r"more than 1 MB.*Split it"):
        read(path, "partners", ColumnMapping())


def test_large_json_array_is_refused(tmp_path, monkeypatch):
    """An array is decoded as a whole; JSON Lines are the way for large files."""
    monkeypatch.setattr("tasks.data_import.json_records.MAX_ARRAY_MB", 0)
    path = tmp_path / "rows"
    path.write_text(json.dumps([{"code": "DE-1", "name": "N"}]), encoding="utf-8")

    with pytest.raises(ImportFileError, match="JSON Lines"):
        read(path, "partners", ColumnMapping())


TOML = st.recursive(
    st.text(max_size=8) | st.integers() | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["title", "format", "A", "status"]), inner, max_size=3)
    ),
)
TABLES = st.sampled_from(
    ["columns", "optional_columns", "values", "constants", "dates", "extends", "requests", "items", "other"]
)


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


@FILES
@given(tables=st.dictionaries(TABLES, TOML, max_size=4), kind=st.sampled_from([None, "requests", "partners"]))
def test_any_mapping_is_read_or_refused_in_words(tmp_path, tables, kind):
    """A mapping of any shape never raises another error."""
    path = tmp_path / "map.toml"
    path.write_text(
        "\n".join(f"{name} = {toml(value)}" for name, value in tables.items()), encoding="utf-8", errors="replace"
    )
    rows = tmp_path / "rows"
    rows.write_text("A,title\nx,y\n", encoding="utf-8")

    found = rows_or_words(lambda: read(rows, kind, read_mapping(path, kind)))

    assert len(found) <= 1


@given(form=st.text("%dmYyHMSzbBjaAfpIUWGuVcxX/-. ", max_size=12), text=st.text(max_size=12))
def test_any_date_format_is_used_or_refused(form, text):
    """A format names day, month and year; a text that does not fit is a `ValueError` in words."""
    words = ""
    try:
        parse_formats(form).parse(text)
    except ValueError as error:
        words = str(error)

    assert not words or "date format" in words or "is not a date in the form" in words
