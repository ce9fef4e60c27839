# SPDX-License-Identifier: Apache-2.0
"""Import the rows of a file in batches, in one transaction per batch or in one for the whole file."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, islice
from typing import Final, TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from tasks.data_import.readers import InvalidRow, ValidRow
from tasks.data_import.row_models import Row
from tasks.data_import.store_locations import (
    store_branches,
    store_partners,
    store_patrons,
    store_printers,
    store_stations,
)
from tasks.data_import.store_requests import store_items, store_loans, store_requests
from tasks.data_import.upsert import Outcome, RowRefusedError

BATCH_SIZE: Final = 1000
"""Rows in one transaction."""

T = TypeVar("T")

STORE_FUNCTIONS: Final[Mapping[str, Callable[[Sequence[Row], Session, datetime], list[Outcome]]]] = {
    "branches": store_branches,
    "printers": store_printers,
    "stations": store_stations,
    "partners": store_partners,
    "patrons": store_patrons,
    "requests": store_requests,
    "items": store_items,
    "loans": store_loans,
}
"""Each raises `RowRefusedError` or `IntegrityError` when a row cannot be stored; the caller rolls back."""


@dataclass
class ImportReport:
    """Outcome of an import: counts of rows, and the refused rows with their reasons."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: list[InvalidRow] = field(default_factory=list)
    committed: bool = True
    """False when nothing was stored: a dry run, or a refused row under `strict`."""

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """Count stored rows."""
        for outcome in outcomes:
            setattr(self, outcome.value, getattr(self, outcome.value) + 1)


def import_rows(
    rows: Iterable[ValidRow | InvalidRow],
    sessions: sessionmaker[Session],
    now: datetime,
    *,
    strict: bool = False,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda _rows: None,
) -> ImportReport:
    """Store `rows` and report. With `strict` one refused row rolls back all; with `dry_run` nothing is stored.

    `progress` is called with the number of rows handled since the last call.
    """
    report = ImportReport()
    with _transaction(sessions) if strict or dry_run else nullcontext() as whole_file:
        for batch in _batches(rows):
            _store_batch(batch, whole_file, sessions, now, report)
            progress(len(batch))
        report.committed = not (dry_run or (strict and report.refused))
        if whole_file is not None and not report.committed:
            whole_file.rollback()
    return report


def _store_batch(
    batch: list[ValidRow | InvalidRow],
    whole_file: Session | None,
    sessions: sessionmaker[Session],
    now: datetime,
    report: ImportReport,
) -> None:
    report.refused += [row for row in batch if isinstance(row, InvalidRow)]
    valid = [row for row in batch if isinstance(row, ValidRow)]
    # Neighbours of one kind together, in the file's order: a later kind may refer to an earlier one.
    for kind, group in groupby(valid, key=lambda row: row.row.kind):
        of_kind = list(group)
        try:
            report.count(_store(kind, of_kind, whole_file, sessions, now))
        except (IntegrityError, RowRefusedError):
            # At least one row cannot be stored: store them one by one, so that the others are kept.
            for row in of_kind:
                try:
                    report.count(_store(kind, [row], whole_file, sessions, now))
                except RowRefusedError as error:
                    report.refused.append(InvalidRow(row.line, str(error)))
                except IntegrityError:
                    report.refused.append(InvalidRow(row.line, "conflicts with a row that is stored already"))
    report.refused.sort(key=lambda row: row.line)


def _store(
    kind: str, rows: list[ValidRow], whole_file: Session | None, sessions: sessionmaker[Session], now: datetime
) -> list[Outcome]:
    """Store rows of one kind, all or none: in a savepoint of the file's transaction, or in a transaction."""
    store = STORE_FUNCTIONS[kind]
    if whole_file is not None:
        with whole_file.begin_nested():
            return store([row.row for row in rows], whole_file, now)
    with _transaction(sessions) as session:
        return store([row.row for row in rows], session, now)


def _batches(rows: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH_SIZE)):
        yield batch


@contextmanager
def _transaction(sessions: sessionmaker[Session]) -> Iterator[Session]:
    with sessions() as session:
        yield session
        session.commit()
