# SPDX-License-Identifier: Apache-2.0
"""Damaged files: no row is swallowed, none is invented, and the report adds up or the file is refused."""

import json
import re

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from schemas.models import Partner
from workers.cli import main

HEAD = "code,name,delivery_code\n"
EVIL = "XX-EVIL,Injected,EVL"


@pytest.fixture
def run(library, database_url, monkeypatch, tmp_path):
    """Import bytes or a text as partners; return the result."""
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)

    def run(content, *options):
        path = tmp_path / "rows"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return CliRunner().invoke(main, ["import", str(path), "--kind", "partners", "--json", *options])

    return run


@pytest.fixture
def stored(engine):
    """The stored partners beside that of the tests' library, by code."""

    def stored():
        with engine.connect() as connection:
            rows = connection.execute(select(Partner.code, Partner.name).where(Partner.code != "XX-RUL"))
            return {row.code: row.name for row in rows}

    return stored


def report(result):
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


def refused(result):
    """The text of a refused file."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Nothing was imported." in result.stderr
    return result.stderr


def adds_up(found):
    return found["read"] == found["added"] + found["changed"] + found["unchanged"] + len(found["refused"])


@pytest.mark.parametrize("rows", [3, 20_000])
@pytest.mark.parametrize("value", ['"Open', 'Open,"X'], ids=["middle", "last"])
def test_quote_open_to_the_end_refuses_the_file(run, stored, rows, value):
    """The line of the quote and the number of lines that were not read are shown; nothing is stored."""
    lines = [f"DE-{number},Library {number},X{number}" for number in range(rows)]
    lines[1] = f"DE-1,{value}" + ("" if "," in value else ",X1")

    text = refused(run(HEAD + "\n".join(lines) + "\n"))

    assert "line 3" in text
    assert f"{rows - 1:,} lines" in text
    assert stored() == {}


def test_record_over_several_lines_that_is_invalid_refuses_the_file(run, stored):
    """Reading never continues inside a record: a line break in a title must not make a row."""
    text = HEAD + f'DE-0,Good,G\nDE-1,"A name\n{EVIL}\nwith "quotes" inside",X\nDE-2,N,X\n'

    words = refused(run(text))

    assert "lines 3 to 5" in words
    assert stored() == {}


@pytest.mark.parametrize(
    "line",
    [f'DE-1,"A" name\n{EVIL}\nlast",X', f'DE-1,N,"A" x\n{EVIL}\nlast"', f'DE-1,"A "quoted" name\n{EVIL}\nlast",X'],
    ids=["short line", "last column", "odd quotes"],
)
def test_damaged_line_that_may_be_open_refuses_the_file(run, stored, line):
    """A writer that does not double quotes may have broken a value over lines: the next line may be text."""
    refused(run(f"{HEAD}DE-0,Good,G\n{line}\nDE-2,N,X\n"))

    assert stored() == {}


@pytest.mark.parametrize("line", ['DE-1,"Foo" bar,X', 'DE-1,"A "quoted" name",X', 'DE-1,N,"A "quoted" code"'])
def test_damaged_line_is_refused_and_others_kept(run, stored, line):
    """Damage that certainly ends with its line refuses one row."""
    found = report(run(f"{HEAD}DE-0,Good,G\n{line}\nDE-2,N,X\n"))

    assert [row["line"] for row in found["refused"]] == [3]
    assert adds_up(found)
    assert set(stored()) == {"DE-0", "DE-2"}


@pytest.mark.parametrize("column", ["name", "delivery_code"])
def test_rows_inside_a_value_are_refused(run, stored, column):
    """A quote that another row happens to close: the record is refused with its lines, and no row is swallowed."""
    first, last = ('DE-1,"Open,X', 'DE-3,Closed",X') if column == "name" else ('DE-1,N,"Open', 'DE-3,N,Closed"')

    found = report(run(f"{HEAD}{first}\nDE-2,N,X\n{last}\nDE-4,N,X\n"))

    assert [row["line"] for row in found["refused"]] == [2]
    assert "lines 2 to 4 are one record" in found["refused"][0]["reason"]
    assert set(stored()) == {"DE-4"}


def test_value_with_line_breaks_is_read(run, stored):
    """A record over several lines is a record; its line breaks are white space."""
    found = report(run(f'{HEAD}DE-1,"First\nsecond, third\r\nlast ""q""",X\nDE-2,"",\n'.replace('DE-2,""', "DE-2,N")))

    assert found["added"] == 2
    assert stored() == {"DE-1": 'First second, third last "q"', "DE-2": "N"}


SEPARATORS = ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\u00a0"]


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("form", ["csv", "quoted", "json", "array"])
def test_separator_inside_a_value_is_white_space(run, stored, separator, form):
    """Line separators of Unicode and control characters never end a row."""
    name = f"A{separator}{EVIL.replace(',', ' ')}"
    row = {"code": "DE-1", "name": name}
    text = {
        "csv": f"code,name\nDE-1,{name}\nDE-2,N\n",
        "quoted": f'code,name\nDE-1,"{name}"\nDE-2,N\n',
        "json": "".join(
            json.dumps(each, ensure_ascii=False).replace(f"\\u{ord(separator):04x}", separator) + "\n"
            for each in (row, {"code": "DE-2", "name": "N"})
        ),
        "array": json.dumps([row, {"code": "DE-2", "name": "N"}], ensure_ascii=False),
    }[form]

    found = report(run(text))

    assert (found["added"], found["refused"]) == (2, []), found
    assert stored() == {"DE-1": "A XX-EVIL Injected EVL", "DE-2": "N"}


@pytest.mark.parametrize(
    "text",
    ["code,name\nDE-1,A\x00B\nDE-2,N\n", '{"code": "DE-1", "name": "A\x00B"}\n', "code,name\nDE-1,N\n" + "\x00" * 4096],
)
def test_nul_refuses_the_file_with_its_line(run, stored, text):
    """A file with a NUL is damaged: the line is shown, and nothing is stored."""
    words = refused(run(text))

    line = text[: text.index("\x00")].count("\n") + 1
    assert f"line {line} contains a NUL" in words
    assert stored() == {}


def test_escaped_nul_refuses_the_row(run, stored):
    """JSON may contain an escaped NUL: it is not removed from a text or an identifier."""
    rows = [{"code": "DE-1", "name": "A\0B"}, {"code": "DE\0-2", "name": "N"}, {"code": "DE-3", "name": "N"}]

    found = report(run("\n".join(map(json.dumps, rows))))

    assert [row["line"] for row in found["refused"]] == [1, 2]
    assert stored() == {"DE-3": "N"}


@pytest.mark.parametrize("code", ["DE-1\u200b9", "DE-1\x019", "DE-1\u202e9", "DE-\n19", "DE-\u00ad19"])
def test_invisible_characters_in_an_identifier_are_refused(run, stored, code):
    """Two identifiers that look the same are not stored; one with a line break is damage."""
    found = report(run(json.dumps({"code": code, "name": "N"}) + "\n"))

    assert [row["line"] for row in found["refused"]] == [1]
    assert stored() == {}


@pytest.mark.parametrize(
    ("code", "kept"),
    [('="0012"', "0012"), ("'0012", "0012"), ("12.0", "12"), ("\ufeffDE-1\u00a0", "DE-1"), ("1,2E+10", None)],
)
def test_identifier_of_a_spreadsheet_is_unwrapped_or_refused(run, stored, code, kept):
    """Identifiers are damaged as barcodes are."""
    found = report(run(json.dumps({"code": code, "name": "N"}) + "\n"))

    assert list(stored()) == ([kept] if kept else [])
    assert len(found["refused"]) == (0 if kept else 1)


def test_doubled_key_refuses_the_row(run, stored):
    """A JSON object that names a key twice is refused: which of the two is true?"""
    found = report(run('{"code": "DE-1", "name": "A", "name": "B"}\n{"code": "DE-2", "name": "N"}\n'))

    assert [row["line"] for row in found["refused"]] == [1]
    assert stored() == {"DE-2": "N"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("code,name\nDE-1,Käse\n".encode("latin-1"), r"line 2.*UTF-8.*--encoding windows-1252"),
        (b"\xff\xfe\x00\x00" + "code".encode("utf-32-le"), "UTF-32"),
        ("code,name\nDE-1,N\n".encode("utf-16-le"), "--encoding utf-16"),
        (b"PK\x03\x04\x00", "workbook"),
        (b"\x1f\x8b\x08\x00", "compressed"),
        ("code,name\nDE-1,N\n".encode("utf-16") + b"\x00", "utf-16"),
        (b'[{"code": "DE-1", "name": "N"}\n{"code": "DE-2"}]', "line 1.*comma is missing"),
        (b'[{"code": "DE-1", "name": "N"},\n{"code": "DE-2", "na', "not valid JSON from line 2"),
        (b'[{"code": "DE-1", "name": "N"}] x', "text follows"),
        (b"[" * 100_000, "nested too deep"),
        (b"code,name,name\nDE-1,A,B\n", "'name' twice"),
        (b"name,delivery_code\nA,B\n", "no column code"),
        (b",,\nDE-1,A,B\n", "without a name"),
        (b"sep=;\n", "no header"),
    ],
)
def test_unreadable_file_is_refused_in_words(run, stored, content, words):
    """The cause and the next step are shown; nothing is stored, and there is no traceback."""
    text = refused(run(content))

    assert re.search(words, text.replace("\n", " ")), text
    assert stored() == {}


def test_encoding_that_contradicts_the_file_is_refused(run, stored):
    """UTF-8 read as Windows-1252 would store damaged names."""
    assert "UTF-8" in refused(run("code,name\nDE-1,Käse\n", "--encoding", "windows-1252"))
    assert "UTF-16" in refused(run("code,name\nDE-1,N\n".encode("utf-16"), "--encoding", "windows-1252"))
    assert stored() == {}


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("code,name\nDE-1,Käse\n".encode("windows-1252"), ["--encoding", "windows-1252"]),
        ("code,name\nDE-1,Käse\n".encode("utf-16"), []),
        (b"\xfe\xff" + "code,name\r\nDE-1,Käse\r\n".encode("utf-16-be"), []),
        ("code,name\nDE-1,Käse\n".encode("utf-16-le"), ["--encoding", "utf-16"]),
        ("code,name\nDE-1,Käse\n".encode("utf-16-be"), ["--encoding", "utf-16"]),
        ("\ufeffcode,name\rDE-1,Käse\r".encode(), []),
        ("sep=;\ncode;name\nDE-1;Käse\n".encode(), []),
        ('"sep=|"\r\ncode|name\r\nDE-1|Käse\r\n'.encode(), []),
        ("code,name,,\nDE-1,Käse,,\n".encode(), []),
        ("code,name\nDE-1,Käse,,,\n".encode(), []),
        ("code;name;;\nDE-1;Käse\n".encode(), []),
        ('\n\n"code","name"\nDE-1,Käse\n,\n'.encode(), []),
        ('[{"code": "DE-1", "name": "Käse"}]'.encode(), []),
        ('\ufeff \n[\n  {\n "code": "DE-1",\n "name": "Käse"}\n]\n'.encode(), []),
    ],
)
def test_other_form_of_the_same_file_is_read(run, stored, content, options):
    """Encodings, delimiters and empty columns that spreadsheets and databases write."""
    found = report(run(content, *options))

    assert (found["added"], found["refused"]) == (1, [])
    assert stored() == {"DE-1": "Käse"}


def test_value_in_a_column_without_a_name_is_refused(run, stored):
    """A value after the last named column is damage of the row."""
    found = report(run("code,name,\nDE-1,A,B\nDE-2,A,\n"))

    assert [row["line"] for row in found["refused"]] == [2]
    assert stored() == {"DE-2": "A"}


def test_long_text_is_shortened_and_reported(run, stored):
    """A name that is too long is stored shortened, with its line in the report; the second import changes nothing."""
    text = f"code,name\nDE-1,{'long name ' * 60}\nDE-2,N\n"

    first, second = report(run(text)), report(run(text))

    assert (first["added"], second["unchanged"]) == (2, 2)
    assert first["shortened"] == second["shortened"] == [{"line": 2, "kind": "partners", "columns": ["name"]}]
    assert len(stored()["DE-1"]) <= 200
    assert stored()["DE-1"].endswith("…")


def test_long_identifier_is_refused(run, stored):
    """An identifier is never shortened: two of them could become one."""
    found = report(run(f"code,name,delivery_code\n{'9' * 41},N,\nDE-2,N,{'X' * 41}\n"))

    assert [row["line"] for row in found["refused"]] == [2, 3]
    assert stored() == {}
