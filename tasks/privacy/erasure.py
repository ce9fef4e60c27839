# SPDX-License-Identifier: Apache-2.0
"""Erase a patron: the row, its links, and each stored text that names the number or the name.

Texts are erased in bounded batches, each in one transaction, and the row in the last one. So the erasure may be
interrupted and run again, and a worker waits for no longer than one batch.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import structlog
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from schemas.database import READ_ONLY
from schemas.models import Item, Loan, Patron, Printer, Request, UndoPatronLink, table
from schemas.request_status import CLOSED
from tasks.context import Context
from tasks.privacy import stored_texts
from tasks.privacy.free_text import PatronText
from tasks.unit_of_work import retry_on_conflict

log = structlog.get_logger()

_LINKS: Final[Mapping[str, InstrumentedAttribute[Any]]] = MappingProxyType(
    {"loans": Loan.patron_id, "requests": Request.patron_id, "set_aside_links": UndoPatronLink.patron_id}
)


class Obstacle(StrEnum):
    """A reason for which a patron is still needed."""

    OPEN_LOAN = "open_loan"
    OPEN_FEE = "open_fee"
    OPEN_REQUEST = "open_request"
    UNDO_OPEN = "undo_open"


@dataclass(frozen=True)
class Needed:
    """An obstacle, and the external identifiers of its requests."""

    obstacle: Obstacle
    requests: tuple[str, ...]


class PatronNeededError(Exception):
    """The patron has an open loan, fee, claim or request, or a Return that can be undone. Nothing was erased."""

    def __init__(self, needed: Sequence[Needed]) -> None:
        self.needed = tuple(needed)
        super().__init__(", ".join(each.obstacle.value for each in needed))


@dataclass(frozen=True)
class ErasureReport:
    """The number of rows that were erased or changed, or would be in a dry run."""

    rows: Mapping[str, int]
    """By table; `spool_files` are files of slips. Contains every searched table."""
    texts_searched: bool
    """False if the number was too short for a search in texts and the patron had no name of two words."""

    @property
    def total(self) -> int:
        """Sum of all counts."""
        return sum(self.rows.values())


def erase_patron(number: str, context: Context, *, dry_run: bool = False) -> ErasureReport:
    """Erase the patron with `number` everywhere in the database, and spooled slips that name the patron.

    The number may have no row any more: texts that name it are erased as well. Raises `PatronNeededError`.
    """
    with context.sessions() as session:
        session.connection(execution_options=READ_ONLY)
        patron = session.execute(select(Patron.id, Patron.name).where(Patron.number == number)).one_or_none()
        if patron is not None and (needed := list(obstacles(session, patron.id, context.now()))):
            raise PatronNeededError(needed)
    wanted = PatronText.of(number, None if patron is None else patron.name)
    counts: Counter[str] = Counter(dict.fromkeys((*stored_texts.SEARCHED, *_LINKS, "spool_files", "patrons"), 0))
    files: list[Path] = []
    if wanted.terms:
        for name in stored_texts.SEARCHED:
            for keys in stored_texts.find(name, wanted, context):
                counts[name] += _erase_texts(name, keys, wanted, context, files, dry_run=dry_run)
    counts["spool_files"] = sum(_delete(file, dry_run=dry_run) for file in dict.fromkeys(files))
    if patron is not None:
        counts.update(_erase_row(patron.id, context, dry_run=dry_run))
    if not dry_run:
        log.info("patron_erased", count=counts.total())
    return ErasureReport(dict(counts), texts_searched=bool(wanted.terms))


def obstacles(session: Session, patron_id: int, now: datetime) -> Iterator[Needed]:
    """The reasons for which the patron is still needed."""
    loan = (
        select(func.coalesce(Request.external_id, "an item without a request"))
        .select_from(Loan)
        .join(Item, Item.id == Loan.item_id)
        .outerjoin(Request, Request.id == Item.request_id)
    )
    of_patron = Loan.patron_id == patron_id
    for obstacle, query in (
        (Obstacle.OPEN_LOAN, loan.where(of_patron, Loan.discharged_at.is_(None))),
        (Obstacle.OPEN_FEE, loan.where(of_patron, or_(Loan.fee_open, Loan.claimed_returned))),
        (
            Obstacle.OPEN_REQUEST,
            select(Request.external_id).where(Request.patron_id == patron_id, Request.status.not_in(CLOSED)),
        ),
        (
            Obstacle.UNDO_OPEN,
            select(Request.external_id)
            .join(UndoPatronLink, UndoPatronLink.request_id == Request.id)
            .where(UndoPatronLink.patron_id == patron_id, UndoPatronLink.purge_after > now),
        ),
    ):
        found = sorted(set(session.scalars(query.limit(100))))
        if found:
            yield Needed(obstacle, tuple(found))


def _erase_texts(
    name: str, keys: Sequence[Any], wanted: PatronText, context: Context, files: list[Path], *, dry_run: bool
) -> int:
    """Erase the texts of the rows with `keys` that name the patron, in one transaction; return the number of rows.

    Adds the spooled files of the changed slips to `files`.
    """
    column = stored_texts.SEARCHED[name].key
    target = table(stored_texts.SEARCHED[name].model)

    def work() -> int:
        changed = 0
        with context.unit_of_work() as uow:
            for row in stored_texts.rows(uow.session, name, keys):
                values = stored_texts.changes(name, row, wanted, uow.now)
                if not values:
                    continue
                changed += 1
                if name == "print_jobs":
                    files.extend(_spool_file(uow.session, row))
                if not dry_run:
                    key = getattr(row, column.key)
                    uow.session.execute(update(target).where(target.c[column.key] == key).values(values))
        return changed

    return retry_on_conflict(work)


def _spool_file(session: Session, job: Any) -> list[Path]:
    """The file of a slip, if its printer is a folder."""
    uri = session.scalar(select(Printer.uri).where(Printer.id == job.printer_id))
    parts = urlsplit(uri or "")
    if parts.scheme != "spool" or not job.spool_id or Path(job.spool_id).name != job.spool_id:
        return []
    return [Path(unquote(parts.path)) / job.spool_id]


def _delete(file: Path, *, dry_run: bool) -> int:
    """Delete a file of this machine; return 1 if it existed."""
    if not file.is_file():
        return 0
    if not dry_run:
        file.unlink(missing_ok=True)
    return 1


def _erase_row(patron_id: int, context: Context, *, dry_run: bool) -> Mapping[str, int]:
    """Sever the links and delete the row, in one transaction that holds the row's lock. Raises `PatronNeededError`."""

    def work() -> Mapping[str, int]:
        with context.unit_of_work() as uow:
            session = uow.session
            session.execute(select(Patron.id).where(Patron.id == patron_id).with_for_update())
            if needed := list(obstacles(session, patron_id, uow.now)):
                raise PatronNeededError(needed)
            counts = {
                name: session.scalar(select(func.count()).where(link == patron_id)) or 0
                for name, link in _LINKS.items()
            }
            if not dry_run:
                session.execute(delete(UndoPatronLink).where(UndoPatronLink.patron_id == patron_id))
                for model in (Loan, Request):
                    session.execute(update(model).where(model.patron_id == patron_id).values(patron_id=None))
                session.execute(delete(Patron).where(Patron.id == patron_id))
            return {**counts, "patrons": 1}

    return retry_on_conflict(work)
