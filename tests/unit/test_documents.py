# SPDX-License-Identifier: Apache-2.0
"""Documents: generated pages are current, tables are whole, relative links resolve, commands exist."""

import itertools
import re
from pathlib import Path

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
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"(?:^\$ .*?|^|bin/)(bookdrop|bookdrop-station) ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", re.MULTILINE)
PATH = re.compile(
    r"(?<![\w./-])(?:schemas|tasks|workers|stations|tests|docs|deploy|benchmarks|requirements)/[\w./*@-]*\w[*/]?"
)
NO_FILES = {"benchmarks/results", "deploy/secrets", "deploy/bookdrop-housekeeping"}
"""Folders that commands create, and an object of Kubernetes."""

PROGRAMS = {"bookdrop": operations, "bookdrop-station": station}


def found_in_documents(find):
    """Each document in which `find` finds something, with all that it found there."""
    for path in DOCUMENTS:
        if found := find(path.read_text(encoding="utf-8")):
            yield pytest.param(path, found, id=str(path.relative_to(ROOT)))


def commands(text):
    """Program, command and subcommand of each line in the console blocks of `text`."""
    return [match for block in CONSOLE.findall(text) for match in COMMAND.findall(block)]


def project_paths(text):
    """Files and folders of the project that `text` names, without the targets of links."""
    targets = {target for target, _ in LINK.findall(text)}
    return {path.rstrip("/") for path in PATH.findall(text) if path not in targets} - NO_FILES


def anchors(path):
    """The anchors of a page's headings, as code hosts derive them."""
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


@pytest.mark.parametrize(("document", "found"), list(found_in_documents(lambda text: list(tables(text)))))
def test_table_rows_have_as_many_cells_as_their_header(document, found):
    """No line break and no bare `|` in a cell breaks a table."""
    assert [row for header, *rows in found for row in rows if len(row) != len(header)] == []


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


@pytest.mark.parametrize(("document", "links"), list(found_in_documents(LINK.findall)))
def test_relative_links_resolve(document, links):
    """Every relative link names an existing file, and every anchor a heading."""
    for target, anchor in links:
        path = (document.parent / target) if target else document

        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize(("document", "found"), list(found_in_documents(commands)))
def test_commands_in_console_blocks_exist(document, found):
    """Every command line in a console block names a command of its program, and an existing subcommand."""
    for program, name, subcommand in found:
        group = PROGRAMS[program]
        command = group.get_command(click.Context(group), name)

        assert command is not None, f"{program} {name}"
        if isinstance(command, click.Group):
            assert command.get_command(click.Context(command), subcommand), f"{program} {name} {subcommand}"


@pytest.mark.parametrize(("document", "paths"), list(found_in_documents(project_paths)))
def test_paths_exist(document, paths):
    """Every file and folder of the project that a page names exists."""
    assert {path for path in paths if not list(ROOT.glob(path))} == set()


def test_every_page_is_listed():
    """The list of all documentation names each page under docs/."""
    listed = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "README.md"]

    assert pages
    assert [path for path in pages if str(path.relative_to(ROOT / "docs")) not in listed] == []
