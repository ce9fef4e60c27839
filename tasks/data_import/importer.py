# SPDX-License-Identifier: Apache-2.0
"""Import the rows of a file in batches, in one transaction per batch or in one for the whole file."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from itertools import groupby
from typing import Final

from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from tasks.data_import.batches import batches
from tasks.data_import.outcome import RowResult
from tasks.data_import.report import UNKNOWN_KIND, ImportReport
from tasks.data_import.row_models import Row
from tasks.data_import.store_items import store_items
from tasks.data_import.store_loans import store_loans
from tasks.data_import.store_locations import (
    store_branches,
    store_partners,
    store_patrons,
    store_printers,
    store_stations,
)
from tasks.data_import.store_requests import store_requests
from tasks.data_import.upsert import RowRefusedError, StoreContext
from tasks.data_import.validation import InvalidRow, ValidRow

BATCH_SIZE: Final = 1000
"""Rows in one transaction."""

STORE_FUNCTIONS: Final[Mapping[str, Callable[[Sequence[Row], Session, StoreContext], list[RowResult]]]] = {
    "branches": store_branches,
    "printers": store_printers,
    "stations": store_stations,
    "partners": store_partners,
    "patrons": store_patrons,
    "requests": store_requests,
    "items": store_items,
    "loans": store_loans,
}
"""Each returns a result for each row. It raises `RowRefusedError`, `IntegrityError` or `DataError` when rows cannot be
stored together; the caller rolls back."""


def import_rows(
    rows: Iterable[ValidRow | InvalidRow],
    sessions: sessionmaker[Session],
    now: datetime,
    *,
    strict: bool = False,
    dry_run: bool = False,
    rotate_keys: bool = False,
    progress: Callable[[int], None] = lambda _rows: None,
) -> ImportReport:
    """Store `rows` and report. With `strict` one refused row rolls back all; with `dry_run` nothing is stored.

    Only with `rotate_keys` may a row change the key of a stored station. `progress` is called with the number of rows
    handled since the last call.
    """
    report = ImportReport()
    context = StoreContext(now, rotate_keys)
    with _transaction(sessions) if strict or dry_run else nullcontext() as whole_file:
        for batch in batches(rows, BATCH_SIZE):
            _store_batch(batch, whole_file, sessions, context, report)
            progress(len(batch))
        order = (*STORE_FUNCTIONS, UNKNOWN_KIND)
        report.by_kind = {kind: report.by_kind[kind] for kind in order if kind in report.by_kind}
        report.committed = not (dry_run or (strict and report.refused))
        if whole_file is not None and not report.committed:
            whole_file.rollback()
    return report


def _store_batch(
    batch: list[ValidRow | InvalidRow],
    whole_file: Session | None,
    sessions: sessionmaker[Session],
    context: StoreContext,
    report: ImportReport,
) -> None:
    for invalid in batch:
        if isinstance(invalid, InvalidRow):
            report.refuse(invalid)
    valid = [row for row in batch if isinstance(row, ValidRow)]
    report.shortened += [row for row in valid if row.shortened]
    # Neighbours of one kind together, in the file's order: a later kind may refer to an earlier one.
    for kind, group in groupby(valid, key=lambda row: row.row.kind):
        of_kind = list(group)
        try:
            report.count(kind, of_kind, _store(kind, of_kind, whole_file, sessions, context))
        except (DataError, IntegrityError, RowRefusedError):
            # At least one row cannot be stored: store them one by one, so that the others are kept.
            for row in of_kind:
                try:
                    report.count(kind, [row], _store(kind, [row], whole_file, sessions, context))
                except RowRefusedError as error:
                    report.refuse(InvalidRow(row.line, str(error), kind))
                except IntegrityError:
                    report.refuse(InvalidRow(row.line, "conflicts with a row that is stored already", kind))
                except DataError:
                    report.refuse(InvalidRow(row.line, "has a value that the database does not accept", kind))
    report.refused.sort(key=lambda row: row.line)


def _store(
    kind: str, rows: list[ValidRow], whole_file: Session | None, sessions: sessionmaker[Session], context: StoreContext
) -> list[RowResult]:
    """Store rows of one kind: in a savepoint of the file's transaction, or in a transaction."""
    store = STORE_FUNCTIONS[kind]
    values = [row.row for row in rows]
    if whole_file is not None:
        with whole_file.begin_nested():
            results = store(values, whole_file, context)
    else:
        with _transaction(sessions) as session:
            results = store(values, session, context)
    context.added_items.update(result.item_id for result in results if result.item_id is not None)
    return results


@contextmanager
def _transaction(sessions: sessionmaker[Session]) -> Iterator[Session]:
    with sessions() as session:
        yield session
        session.commit()
