# SPDX-License-Identifier: Apache-2.0
"""Import the rows of a file in batches, in one transaction per batch or in one for the whole file."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, islice
from typing import Final, TypeVar

from sqlalchemy.exc import DataError, IntegrityError
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
from tasks.data_import.upsert import Outcome, RowRefusedError, StoreContext

BATCH_SIZE: Final = 1000
"""Rows in one transaction."""

T = TypeVar("T")

STORE_FUNCTIONS: Final[Mapping[str, Callable[[Sequence[Row], Session, StoreContext], list[Outcome]]]] = {
    "branches": store_branches,
    "printers": store_printers,
    "stations": store_stations,
    "partners": store_partners,
    "patrons": store_patrons,
    "requests": store_requests,
    "items": store_items,
    "loans": store_loans,
}
"""Each raises `RowRefusedError`, `IntegrityError` or `DataError` when a row cannot be stored; the caller rolls back."""


UNKNOWN_KIND: Final = "unknown"
"""Key of the report for rows that do not show their kind."""


@dataclass
class RowCounts:
    """Counts of rows by outcome."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: int = 0

    @property
    def read(self) -> int:
        """Number of rows."""
        return self.added + self.changed + self.unchanged + self.refused


@dataclass
class ImportReport:
    """Outcome of an import: counts of rows by kind in the order of import, and the refused rows with their reasons."""

    by_kind: dict[str, RowCounts] = field(default_factory=dict)
    refused: list[InvalidRow] = field(default_factory=list)
    committed: bool = True
    """False when nothing was stored: a dry run, or a refused row under `strict`."""

    @property
    def total(self) -> RowCounts:
        """Counts of all kinds."""
        kinds = self.by_kind.values()
        return RowCounts(
            sum(counts.added for counts in kinds),
            sum(counts.changed for counts in kinds),
            sum(counts.unchanged for counts in kinds),
            sum(counts.refused for counts in kinds),
        )

    def count(self, kind: str, outcomes: Iterable[Outcome]) -> None:
        """Count stored rows of a kind."""
        counts = self.by_kind.setdefault(kind, RowCounts())
        for outcome in outcomes:
            setattr(counts, outcome.value, getattr(counts, outcome.value) + 1)

    def refuse(self, row: InvalidRow) -> None:
        """Count a refused row and keep its reason."""
        self.by_kind.setdefault(row.kind or UNKNOWN_KIND, RowCounts()).refused += 1
        self.refused.append(row)


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
        for batch in _batches(rows):
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
    # Neighbours of one kind together, in the file's order: a later kind may refer to an earlier one.
    for kind, group in groupby(valid, key=lambda row: row.row.kind):
        of_kind = list(group)
        try:
            report.count(kind, _store(kind, of_kind, whole_file, sessions, context))
        except (DataError, IntegrityError, RowRefusedError):
            # At least one row cannot be stored: store them one by one, so that the others are kept.
            for row in of_kind:
                try:
                    report.count(kind, _store(kind, [row], whole_file, sessions, context))
                except RowRefusedError as error:
                    report.refuse(InvalidRow(row.line, str(error), kind))
                except IntegrityError:
                    report.refuse(InvalidRow(row.line, "conflicts with a row that is stored already", kind))
                except DataError:
                    report.refuse(InvalidRow(row.line, "has a value that the database does not accept", kind))
    report.refused.sort(key=lambda row: row.line)


def _store(
    kind: str, rows: list[ValidRow], whole_file: Session | None, sessions: sessionmaker[Session], context: StoreContext
) -> list[Outcome]:
    """Store rows of one kind, all or none: in a savepoint of the file's transaction, or in a transaction."""
    store = STORE_FUNCTIONS[kind]
    if whole_file is not None:
        with whole_file.begin_nested():
            return store([row.row for row in rows], whole_file, context)
    with _transaction(sessions) as session:
        return store([row.row for row in rows], session, context)


def _batches(rows: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH_SIZE)):
        yield batch


@contextmanager
def _transaction(sessions: sessionmaker[Session]) -> Iterator[Session]:
    with sessions() as session:
        yield session
        session.commit()
