# SPDX-License-Identifier: Apache-2.0
"""The reference page of edge cases, generated from the names and docstrings of their tests."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from docs.generate.markdown import table

PAGE: Final = Path("docs/reference/outcomes.md")
CASE_COUNT: Final = 29
"""Edge cases of the domain; each has a test."""

_TESTS: Final = Path("tests/integration/test_edge_cases.py")
_ROOT: Final = Path(__file__).resolve().parents[2]
_NAME: Final = re.compile(r"test_case_(\d\d)_(.+)")
_HEAD: Final = f"""# Edge cases and their outcomes

Situations at a station, and the correct outcome of each. Each row is a test of that name in
[`{_TESTS}`](../../{_TESTS}).
The tests run real workers on a real broker, on SQLite and on PostgreSQL. This page is generated from the tests
(`make docs`).
"""


def cases() -> list[tuple[int, str, str]]:
    """Number, name and outcome of each case, ordered by number."""
    found = []
    for node in ast.parse((_ROOT / _TESTS).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and (match := _NAME.fullmatch(node.name)):
            outcome = ast.get_docstring(node) or ""
            found.append((int(match[1]), match[2].replace("_", " "), outcome))
    return sorted(found, key=lambda case: case[0])


def page() -> str:
    """The page, as Markdown."""
    return "\n".join([_HEAD, *_rows(), ""])


def _rows() -> Iterator[str]:
    return table(("no.", "case", "outcome"), ((str(number), case, outcome) for number, case, outcome in cases()))
