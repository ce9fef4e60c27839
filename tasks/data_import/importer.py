# SPDX-License-Identifier: Apache-2.0
"""Storing a file's rows in batches: a transaction each, or one for all of them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from tasks.data_import.readers import Bad, Good
from tasks.data_import.store_locations import (
    store_branches,
    store_partners,
    store_patrons,
    store_printers,
    store_stations,
)
from tasks.data_import.store_requests import store_items, store_loans, store_requests
from tasks.data_import.upsert import Outcome, RefusedRowError

BATCH = 1000
"""Rows in one transaction."""

T = TypeVar("T")

STORES = {
    "branches": store_branches,
    "printers": store_printers,
    "stations": store_stations,
    "partners": store_partners,
    "patrons": store_patrons,
    "requests": store_requests,
    "items": store_items,
    "loans": store_loans,
}
"""Each raises `RefusedRowError` or `IntegrityError` when a row does not fit; the caller rolls back."""


@dataclass
class Report:
    """What became of a file."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: list[Bad] = field(default_factory=list)
    kept: bool = True
    """False when nothing was stored: a dry run, or a refused row under `strict`."""

    @property
    def rows(self) -> int:
        """How many rows were read."""
        return self.added + self.changed + self.unchanged + len(self.refused)

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """Count stored rows."""
        for outcome in outcomes:
            setattr(self, outcome.value, getattr(self, outcome.value) + 1)


def import_rows(
    rows: Iterable[Good | Bad],
    sessions: sessionmaker[Session],
    now: datetime,
    *,
    strict: bool = False,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda _rows: None,
) -> Report:
    """Store `rows` and report. With `strict` one bad row keeps all out; with `dry_run` nothing is kept.

    `progress` is called with the number of rows done since the last call.
    """
    report = Report()
    together = strict or dry_run
    with _transaction(sessions) if together else _none() as session:
        for batch in _batches(rows):
            _store_batch(batch, session, sessions, now, report)
            progress(len(batch))
        report.kept = not (dry_run or (strict and report.refused))
        if session is not None and not report.kept:
            session.rollback()
    return report


def _store_batch(
    batch: list[Good | Bad], session: Session | None, sessions: sessionmaker[Session], now: datetime, report: Report
) -> None:
    good = [each for each in batch if isinstance(each, Good)]
    report.refused += [each for each in batch if isinstance(each, Bad)]
    for kind, of_kind in _runs(good):
        try:
            report.count(_together(kind, of_kind, session, sessions, now))
        except (IntegrityError, RefusedRowError):
            # One of them does not fit the tables: one by one, so that it harms no other.
            for each in of_kind:
                try:
                    report.count(_together(kind, [each], session, sessions, now))
                except RefusedRowError as error:
                    report.refused.append(Bad(each.line, str(error)))
                except IntegrityError:
                    report.refused.append(Bad(each.line, "contradicts what is stored already"))
    report.refused.sort(key=lambda bad: bad.line)


def _together(
    kind: str, rows: list[Good], session: Session | None, sessions: sessionmaker[Session], now: datetime
) -> list[Outcome]:
    if session is not None:
        with session.begin_nested():
            return STORES[kind]([each.row for each in rows], session, now)
    with _transaction(sessions) as own:
        return STORES[kind]([each.row for each in rows], own, now)


def _runs(rows: list[Good]) -> Iterator[tuple[str, list[Good]]]:
    """Neighbours of one kind together, in order: a later kind may point to an earlier one."""
    run: list[Good] = []
    for each in rows:
        if run and each.row.kind != run[0].row.kind:
            yield run[0].row.kind, run
            run = []
        run.append(each)
    if run:
        yield run[0].row.kind, run


def _batches(rows: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH)):
        yield batch


@contextmanager
def _transaction(sessions: sessionmaker[Session]) -> Iterator[Session]:
    with sessions() as session:
        yield session
        session.commit()


@contextmanager
def _none() -> Iterator[None]:
    yield None
