# SPDX-License-Identifier: Apache-2.0
"""Purge links to patrons that nothing needs any more. May run twice and concurrently."""

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from schemas.models import Item, Loan, Model, Request, UndoPatronLink
from schemas.request_status import CLOSED


@dataclass(frozen=True)
class PurgeCounts:
    """Counts of the links that were purged, or would be in a dry run."""

    set_aside: int
    """Links kept for an undo whose window is over."""
    loans: int
    """Links of discharged loans without an open fee or claim."""
    requests: int
    """Links of closed requests without an open loan, fee or claim."""

    @property
    def total(self) -> int:
        """Sum of all counts."""
        return sum(asdict(self).values())


def purge(session: Session, now: datetime, *, dry_run: bool = False) -> PurgeCounts:
    """Delete links kept for an undo until `now`, and sever links that nothing needs. The caller commits."""
    unneeded: tuple[tuple[type[Model], ColumnElement[bool]], ...] = (
        (UndoPatronLink, UndoPatronLink.purge_after <= now),
        (Loan, _discharged_loans()),
        (Request, _closed_requests()),
    )
    counts = [session.scalar(select(func.count()).select_from(model).where(where)) or 0 for model, where in unneeded]
    if not dry_run and any(counts):
        # Skip rows that a Return or another sweep has locked; the next sweep handles them. So none waits or deadlocks.
        for model, where in unneeded:
            [key] = model.__mapper__.primary_key
            is_unlocked = key.in_(select(key).where(where).with_for_update(skip_locked=True, of=model))
            session.execute(
                delete(model).where(is_unlocked)
                if model is UndoPatronLink
                else update(model).where(is_unlocked).values(patron_id=None)
            )
    return PurgeCounts(*counts)


def _discharged_loans() -> ColumnElement[bool]:
    return and_(
        Loan.patron_id.is_not(None),
        Loan.discharged_at.is_not(None),
        Loan.fee_open.is_(False),
        Loan.claimed_returned.is_(False),
    )


def _closed_requests() -> ColumnElement[bool]:
    """Closed requests without a loan that is open, or has an open fee or claim."""
    loan = select(Loan.id).join(Item, Item.id == Loan.item_id).where(Item.request_id == Request.id)
    in_use = exists(loan.where(or_(Loan.discharged_at.is_(None), Loan.fee_open, Loan.claimed_returned)))
    return and_(Request.patron_id.is_not(None), Request.status.in_(CLOSED), ~in_use)
