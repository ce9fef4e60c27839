# SPDX-License-Identifier: Apache-2.0
"""The project's terms: product code and documents use no word that the glossary replaces.

Words and exceptions are the tables of docs/reference/glossary.md, the only place that lists them.
"""

import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "reference" / "glossary.md"
WORDS, EXCEPTIONS = "## Words that the project does not use", "## Exceptions"

PRODUCT = (
    "schemas", "tasks", "workers", "stations", "deploy", "docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md",
    "Makefile", "pyproject.toml", ".ci", ".github", ".pre-commit-config.yaml",
)  # fmt: skip
"""Files and folders with the project's own texts. Tests and benchmarks are not part of it."""

NEVER = ("schemas/migrations/versions", "tasks/slips/fonts/LICENSE-DejaVu.txt")
"""Migrations do not change once they are released, and a licence keeps its text."""


@dataclass(frozen=True)
class Exemption:
    """A text that the test ignores, in one file or folder or everywhere."""

    text: str
    path: str

    @property
    def pattern(self):
        """The text as a pattern with borders where it begins or ends with a letter or digit."""
        body = re.escape(self.text).replace(r"\*", r"[\w-]*")
        before = r"(?<!\w)" if self.text[0].isalnum() else ""
        after = r"(?!\w)" if self.text[-1].isalnum() else ""
        return re.compile(before + body + after, re.IGNORECASE)

    def applies(self, path):
        return is_under(path, self.path) if self.path else True


def is_under(path, folder):
    return path == folder or path.startswith(folder + "/")


def rows(page, heading):
    """The cells of the table below a heading, without its two head lines."""
    section = page.partition(heading + "\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def codes(cell):
    return re.findall(r"`([^`]+)`", cell)


def replacements(page):
    """Each word or phrase with the terms to write instead."""
    return {word: instead.strip("| ") for cell, instead in rows(page, WORDS) for word in codes(cell)}


def exemptions(page):
    return [
        Exemption(text, "".join(codes(cells[2]) if len(cells) > 2 else ""))
        for cells in rows(page, EXCEPTIONS)
        for text in codes(cells[0])
    ]


PAGE = GLOSSARY.read_text(encoding="utf-8")
INSTEAD = replacements(PAGE)
EXEMPTIONS = exemptions(PAGE)
BANNED = re.compile(
    r"\b(" + "|".join(r"\s+".join(map(re.escape, word.split())) for word in sorted(INSTEAD, key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)  # fmt: skip


def split_names(text):
    """Names as words: `lets_go_of` and `LetsGoOf` become `lets go of`, with the same number of lines."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text.replace("_", " "))


def python_chunks(source):
    """Names, strings and blocks of comments, each with its first line."""
    block: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT:
            if block and line > last + 1:
                yield first, "\n".join(block)
                block = []
            if not block:
                first = line
            block.append(token.string.lstrip("#"))
            last = line
        elif token.type == tokenize.NAME or tokenize.tok_name[token.type] in {"STRING", "FSTRING_MIDDLE"}:
            yield line, token.string
    if block:
        yield first, "\n".join(block)


def page_chunks(text):
    """A Markdown page without its blocks of program output, which have no language: the program is tested itself."""
    lines, fence = [], None
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fence = None if fence else line.strip()
        lines.append("" if fence == "```" else line)
    yield 1, "\n".join(lines)


def chunks(path, text):
    """The parts of a file that contain the project's words, each with its first line."""
    if path == GLOSSARY.relative_to(ROOT).as_posix():
        text = text.partition(WORDS)[0]
    if path.endswith(".py"):
        return python_chunks(text)
    if path.endswith(".md"):
        return page_chunks(text)
    return [(1, text)]


def findings(path, text):
    """Each banned word in a file, as `path:line: word -> terms`."""
    exempt = [each for each in EXEMPTIONS if each.applies(path)]
    found = []
    for first, chunk in chunks(path, text):
        for each in exempt:
            chunk = each.pattern.sub(lambda match: "\n" * match[0].count("\n") + "~", chunk)  # noqa: PLW2901
        words = split_names(chunk)
        for match in BANNED.finditer(words):
            word = " ".join(match[0].split()).lower()
            line = first + words.count("\n", 0, match.start())
            found.append(f"{path}:{line}: {word} -> {INSTEAD[word]}")
    return found


def files(*places):
    """Paths and texts of all files below the places, without binary files."""
    for place in places:
        where = ROOT / place
        for path in sorted([where] if where.is_file() else where.rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if not path.is_file() or "__pycache__" in path.parts or any(is_under(name, folder) for folder in NEVER):
                continue
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


CHECKED = dict(files(*PRODUCT))
CHECKED[GLOSSARY.relative_to(ROOT).as_posix()] = PAGE


@pytest.mark.parametrize("path", CHECKED)
def test_file_uses_the_terms(path):
    """A file contains no word that the glossary replaces."""
    assert findings(path, CHECKED[path]) == []


def test_each_word_has_a_replacement_and_is_listed_once():
    """The table of words is complete and has no duplicates."""
    listed = [word for cell, _ in rows(PAGE, WORDS) for word in codes(cell)]

    assert listed
    assert len(listed) == len(set(listed))
    assert all(INSTEAD.values())


@pytest.mark.parametrize("exemption", EXEMPTIONS, ids=lambda each: each.text)
def test_each_exception_is_needed(exemption):
    """Each exception hides a word, and its text occurs where it applies."""
    places = (exemption.path,) if exemption.path else PRODUCT
    occurs = any(
        exemption.pattern.search(text) for path, text in files(*places) if path.endswith(".md") or path != PAGE
    )

    assert BANNED.search(split_names(exemption.text.replace("*", "")))
    assert occurs


@pytest.mark.parametrize(
    ("path", "text", "lines"),
    [
        ("a.py", "def lets_go_of(): ...", [1]),
        ("a.py", "class LetsGoOf: ...", [1]),
        ("a.py", 'x = 1\nlog("event_put_back")', [2]),
        ("a.py", "# What is let\n# go of here.", [1]),
        ("a.py", '"""First.\n\nIt is done\nanew.\n"""', [4]),
        ("a.py", "retold = foretell = hearth = 1", []),
        ("a.yaml", "# There is no worker: a station of main-desk-1\nx: Nobody", [2]),
        ("a.md", "Run `bookdrop-station desk`.\n\n```\nnobody\n```\n\nA desk.", [7]),
        ("a.md", "```console\n$ x\n```\nnobody\n```\nnobody\n```\n", [4]),
    ],
)
def test_finder_reports_the_line_of_each_word(path, text, lines):
    """Names, comments, strings and pages are searched; exceptions and program output are not."""
    assert [int(found.split(":")[1]) for found in findings(path, text)] == lines
