# SPDX-License-Identifier: Apache-2.0
"""The reference page of import columns, generated from the row models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from docs.generate.markdown import table
from tasks.data_import.row_models import KINDS, Row

PAGE: Final = Path("docs/reference/import-columns.md")

_HEAD: Final = """# Columns of an import

`bookdrop import FILE` reads CSV or JSON Lines with these columns. Import the kinds in this order, because each refers only
to those before it. This page is generated from the code (`make docs`).

A later import finds a stored row by its natural key, which every row needs. The stored row changes only in the columns
that the file names. An empty value in a named column sets the default: the value shown, or nothing. "For a new row"
marks a column that a stored row may leave out; an empty value in it is refused.
"""


def page() -> str:
    """The page, as Markdown."""
    return "\n".join([_HEAD, *(line for model in KINDS.values() for line in _section(model))])


def _section(model: type[Row]) -> Iterator[str]:
    yield f"## {model.kind}"
    yield ""
    yield f"{model.__doc__} Natural key: {model.natural_key}."
    yield ""
    yield from table(
        ("column", "required", "description"),
        (
            (
                f"`{name}`",
                _need(model, name),
                field.description or "",
            )
            for name, field in model.model_fields.items()
        ),
    )
    yield ""


def _need(model: type[Row], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "yes"
    return "for a new row" if name in model.new_columns else _default(field.get_default(call_default_factory=True))


def _default(value: Any) -> str:
    if value in (None, [], False):
        return "no"
    return f"no: `{str(value).lower() if isinstance(value, bool) else value}`"
