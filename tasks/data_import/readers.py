# SPDX-License-Identifier: Apache-2.0
"""Read a file of CSV, JSON Lines or a JSON array into rows."""

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from tasks.data_import.csv_records import CsvFile, open_csv
from tasks.data_import.import_errors import ImportFileError
from tasks.data_import.json_records import open_json
from tasks.data_import.mapping import ColumnMapping
from tasks.data_import.row_models import KINDS
from tasks.data_import.text_files import read_text_file
from tasks.data_import.validation import InvalidRow, ValidRow, parse_row

RESTRICTED_KINDS: Final = frozenset({"stations", "printers"})
"""Kinds that decide which station is trusted and where slips print: a file brings them only when they are named."""


def read(
    path: Path,
    kind: str | None,
    mapping: ColumnMapping,
    allowed: Collection[str] = (),
    encoding: str | None = None,
) -> Iterator[ValidRow | InvalidRow]:
    """Yield the rows of the file, in order. Raises `ImportFileError` before the first row, or not at all.

    With `kind`, rows of other kinds are invalid. Without, `RESTRICTED_KINDS` are invalid unless `allowed` names them.
    The whole file is parsed once before the first row, because damage may refuse it.
    """
    source = read_text_file(path, encoding)
    file = open_json(source, kind) or open_csv(source)
    file.check()
    mapping.check(path, file.columns)
    header = file.columns if isinstance(file, CsvFile) else file.first_columns
    columns = mapping.translate_header(header)
    chosen = kind or _guess_kind(columns)
    if chosen is not None:
        _check_columns(path, chosen, columns, is_complete=isinstance(file, CsvFile))
    forbidden = RESTRICTED_KINDS - set(allowed) if kind is None else frozenset()
    return (parse_row(chosen, mapping, line, record, forbidden) for line, record in file.records())


def _guess_kind(columns: set[str]) -> str | None:
    """The only kind that these columns fit; `None` when each row names its kind. Raises `ImportFileError`."""
    if "kind" in columns:
        return None
    fitting = [
        kind
        for kind, model in KINDS.items()
        if columns <= set(model.model_fields) and model.required_columns() <= columns
    ]
    if len(fitting) == 1:
        return fitting[0]
    best = max(KINDS, key=lambda kind: len(columns & set(KINDS[kind].model_fields)))
    hint = f"The columns are most like those of {best}. " if columns & set(KINDS[best].model_fields) else ""
    raise ImportFileError(
        f"The columns {', '.join(sorted(map(str, columns)))[:500]} do not show the kind of the rows.",
        f"{hint}Name the kind with --kind ({', '.join(KINDS)}), or map the columns with --mapping.",
    )


def _check_columns(path: Path, kind: str, columns: set[str], *, is_complete: bool) -> None:
    """Refuse a column that `kind` does not have, and a complete header without the natural key."""
    known = set(KINDS[kind].model_fields) | {"kind"}
    for name in sorted(columns):
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise ImportFileError(
                f"{path} has a column {name[:100]!r} that {kind} do not have.",
                f"Did you mean {near[0]}?" if near else f"Columns of {kind}: {', '.join(sorted(known - {'kind'}))}.",
            )
    missing = sorted(
        name for name, field in KINDS[kind].model_fields.items() if field.is_required() and name not in columns
    )
    if is_complete and missing:
        raise ImportFileError(
            f"{path} has no column {' and no column '.join(missing)}, which every row of {kind} needs.",
            "Map a column to it with --mapping, or correct the header.",
        )
