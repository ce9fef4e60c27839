# SPDX-License-Identifier: Apache-2.0
"""The documents: generated pages are current, links lead somewhere, commands exist."""

import re
from pathlib import Path
from typing import Any

import click
import pytest

from docs.generate import outcomes, return_rules, settings_and_commands
from docs.generate import print_states as slips
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


@pytest.mark.parametrize("file", settings_and_commands.pages())
def test_generated_pages_are_current(file):
    """`make docs` would change nothing."""
    committed = (ROOT / settings_and_commands.FOLDER / file).read_text(encoding="utf-8")

    assert committed == settings_and_commands.pages()[file]


def test_the_picture_of_a_slips_way_is_current():
    """The page of print jobs is the one that the rules make now."""
    assert (ROOT / slips.PAGE).read_text(encoding="utf-8") == slips.page()


def test_the_picture_of_the_table_is_current():
    """`make docs` would change nothing: the page shows the table that the program uses."""
    assert (ROOT / return_rules.PAGE).read_text(encoding="utf-8") == return_rules.page()


def test_the_page_of_outcomes_is_current_and_complete():
    """`make docs` would change nothing, and each of the edge cases has a test."""
    assert outcomes.PAGE.read_text(encoding="utf-8") == outcomes.page()
    assert {number for number, _, _ in outcomes.cases()} == set(range(1, outcomes.HOW_MANY + 1))


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
