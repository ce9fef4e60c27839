# SPDX-License-Identifier: Apache-2.0
"""The documents: generated pages are current, tables are whole, links lead somewhere, commands exist."""

import itertools
import re
from pathlib import Path
from typing import Any

import click
import pytest

from docs.generate import outcomes
from docs.generate.__main__ import PAGES
from docs.generate.markdown import table
from stations.cli import main as station
from workers.cli import main as operations

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "deploy", "schemas", "tasks", "workers", "stations")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
COMMAND = re.compile(r"(?:^\$ .*?|^|bin/)(bookdrop|bookdrop-station) ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", re.MULTILINE)


PATH = re.compile(
    r"(?<![\w./-])(?:schemas|tasks|workers|stations|tests|docs|deploy|benchmarks|requirements)/[\w./*@-]*\w[*/]?"
)
NO_FILES = {"benchmarks/results", "deploy/secrets", "deploy/bookdrop-housekeeping"}
"""Folders that commands create, and an object of Kubernetes."""


def named(path):
    return str(path.relative_to(ROOT))


def anchors(path):
    """The anchors of a page's headings, as they are made on the usual code hosts."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tables(text):
    """Each table of a Markdown text as lists of cells: the header, then the rows.

    A table ends at the first blank line (GitHub Flavored Markdown, 4.10), so a broken row leaves a line with other cells.
    """
    lines = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE).splitlines()
    for number, line in enumerate(lines):
        if re.fullmatch(r"\|(?: *:?-+:? *\|)+", line):
            rows = [lines[number - 1]]
            rows += itertools.takewhile(str.strip, lines[number + 1 :])
            yield [re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|")) for row in rows]


@pytest.mark.parametrize("module", PAGES, ids=lambda module: module.PAGE.stem)
def test_generated_page_is_current(module):
    """`make docs` changes nothing."""
    assert (ROOT / module.PAGE).read_text(encoding="utf-8") == module.page()


def test_every_edge_case_has_a_test():
    """The page of outcomes has a row for each number."""
    assert {number for number, _, _ in outcomes.cases()} == set(range(1, outcomes.CASE_COUNT + 1))


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_table_rows_have_as_many_cells_as_their_header(document):
    """No line break and no bare `|` in a cell breaks a table."""
    for header, *rows in tables(document.read_text(encoding="utf-8")):
        for row in rows:
            assert len(row) == len(header), f"{named(document)}: {row}"


def test_generated_pages_have_tables():
    """The test above finds the tables that it is there for: each page but the one of commands has at least one."""
    without = [module.PAGE.stem for module in PAGES if not list(tables(module.page()))]

    assert without == ["commands"]


def test_table_folds_line_breaks_and_escapes_bars():
    """A docstring of several lines with a `|` in it stays one row of the table."""
    lines = list(table(("name", "description"), [("`one`", "first |\n    second"), ("", "third")]))

    assert lines == ["| name | description |", "| --- | --- |", "| `one` | first \\| second |", "| | third |"]
    [(_, row, _)] = tables("\n".join(lines))
    assert row == [" `one` ", " first \\| second "]


def test_table_with_a_short_row_raises():
    """A generator that leaves out a cell fails, and writes no broken page."""
    with pytest.raises(ValueError, match="1 cells"):
        list(table(("name", "description"), [("one",)]))


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document):
    """Every relative link leads to a file that is there, and every anchor to a heading."""
    for target, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        path = (document.parent / target) if target else document

        assert path.exists(), f"{named(document)}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{named(document)}: {target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_commands_exist(document):
    """Every command that a console block shows is one of the program's."""
    for block in re.findall(r"```console\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
        for program, name, below in COMMAND.findall(block):
            group = operations if program == "bookdrop" else station
            command: Any = group.get_command(click.Context(group), name)

            assert command is not None, f"{named(document)}: {program} {name}"
            if hasattr(command, "get_command"):
                assert command.get_command(click.Context(command), below) is not None, (
                    f"{named(document)}: {program} {name} {below}"
                )


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_paths_exist(document):
    """Every file and folder of the project that a page names is there."""
    text = document.read_text(encoding="utf-8")
    links = {target for target, _ in LINK.findall(text)}
    paths = {path.rstrip("/") for path in PATH.findall(text) if path not in links}

    missing = {path for path in paths - NO_FILES if not list(ROOT.glob(path))}

    assert missing == set()


def test_every_page_is_listed():
    """Each page under docs/ can be reached from the list of all documentation."""
    listed = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")

    missing = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "README.md"
               and str(path.relative_to(ROOT / "docs")) not in listed]  # fmt: skip

    assert missing == []
