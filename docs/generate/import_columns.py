# SPDX-License-Identifier: Apache-2.0
"""The page of import columns, made from the row models. `python -m docs.generate.import_columns` writes it."""

from pathlib import Path
from typing import Any

from tasks.data_import.row_models import KINDS, Row

PAGE = Path("docs/reference/import-columns.md")

_HEAD = """# Columns of an import

`bookdrop import FILE` reads CSV or JSON Lines with these columns. Import the kinds in this order, for each points
only to those before it. An empty value leaves the default. This page is made from the program
(`python -m docs.generate.import_columns`).
"""


def page() -> str:
    """The page, as Markdown."""
    return "\n".join([_HEAD, *(_section(model) for model in KINDS.values())])


def _section(model: type[Row]) -> str:
    lines = [
        f"## {model.kind}",
        "",
        f"{model.__doc__} Known again by: {model.natural_key}.",
        "",
        "| column | needed | what it is |",
        "| --- | --- | --- |",
    ]
    for name, field in model.model_fields.items():
        needed = "yes" if field.is_required() else _default(field.get_default(call_default_factory=True))
        words = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {needed} | {words} |".replace("|  |", "| |"))
    return "\n".join([*lines, ""])


def _default(value: Any) -> str:
    return "no" if value in (None, [], False) else f"no: `{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
