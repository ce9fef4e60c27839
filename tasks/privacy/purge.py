# SPDX-License-Identifier: Apache-2.0
"""Letting go of links to readers that nothing needs any more. Safe to run twice and side by side."""

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from schemas.models import Item, Loan, Model, Request, UndoPatronLink
from schemas.request_status import CLOSED


@dataclass(frozen=True)
class Purged:
    """How many links went, or would go."""

    set_aside: int
    """Kept for an undo whose window is over."""
    loans: int
    """Of discharged loans whose fee or claim, if there was one, is settled."""
    requests: int
    """Of requests that went home or were closed, with no loan and no fee open."""

    @property
    def total(self) -> int:
        """All together."""
        return sum(asdict(self).values())


def purge(session: Session, now: datetime, *, dry_run: bool = False) -> Purged:
    """Delete what was set aside until before `now`, and sever links that are not needed. The caller commits."""
    unneeded: tuple[tuple[type[Model], ColumnElement[bool]], ...] = (
        (UndoPatronLink, UndoPatronLink.purge_after <= now),
        (Loan, _ended_loans()),
        (Request, _closed_requests()),
    )
    counts = [session.scalar(select(func.count()).select_from(model).where(where)) or 0 for model, where in unneeded]
    if not dry_run and any(counts):
        # A row that a Return or another sweep has in hand is left to the next one: nobody waits, nobody deadlocks.
        for model, where in unneeded:
            [key] = model.__mapper__.primary_key
            free = key.in_(select(key).where(where).with_for_update(skip_locked=True, of=model))
            session.execute(
                delete(model).where(free)
                if model is UndoPatronLink
                else update(model).where(free).values(patron_id=None)
            )
    return Purged(*counts)


def _ended_loans() -> ColumnElement[bool]:
    return and_(
        Loan.patron_id.is_not(None),
        Loan.discharged_at.is_not(None),
        Loan.fee_open.is_(False),
        Loan.claimed_returned.is_(False),
    )


def _closed_requests() -> ColumnElement[bool]:
    """A request that is closed and has no loan that is open or owes something."""
    loan = select(Loan.id).join(Item, Item.id == Loan.item_id).where(Item.request_id == Request.id)
    in_use = exists(loan.where(or_(Loan.discharged_at.is_(None), Loan.fee_open, Loan.claimed_returned)))
    return and_(Request.patron_id.is_not(None), Request.status.in_(CLOSED), ~in_use)
