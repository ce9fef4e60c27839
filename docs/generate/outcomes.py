# SPDX-License-Identifier: Apache-2.0
"""The page of edge cases, made from the tests' own names and docstrings. `python -m docs.generate.outcomes` writes it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "integration" / "test_edge_cases.py"
PAGE = ROOT / "docs" / "reference" / "outcomes.md"
HOW_MANY = 29

_NAME = re.compile(r"test_case_(\d\d)_(.+)")
_HEAD = f"""# Edge cases and their outcomes

What can lie on a desk, and what is right. Each line is a test of that name in
[`{CASES.relative_to(ROOT)}`](../../{CASES.relative_to(ROOT)}), which runs real workers on a real broker, on SQLite and on
PostgreSQL. This page is made from the tests (`make docs`).

| no. | case | outcome |
| --- | --- | --- |
"""


def cases() -> list[tuple[int, str, str]]:
    """Number, name in words and right outcome of each test, in the order of the numbers."""
    found = []
    for node in ast.parse(CASES.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and (match := _NAME.fullmatch(node.name)):
            words = " ".join((ast.get_docstring(node) or "").split())
            found.append((int(match[1]), match[2].replace("_", " "), words))
    return sorted(found, key=lambda case: case[0])


def page() -> str:
    """The page, as Markdown."""
    return _HEAD + "".join(f"| {number} | {case} | {words} |\n" for number, case, words in cases())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
