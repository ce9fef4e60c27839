# SPDX-License-Identifier: Apache-2.0
"""Limits of the quarantine: content in number and bytes, and records in number. The oldest content is erased first.

Anyone who may write to a queue can fill the quarantine. Housekeeping enforces the limits at each sweep, so between two
sweeps the table may exceed them. The record of an erased message stays: reason, time, size and digest.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import case, delete, func, or_, select, update

from schemas.models import QuarantinedMessage, table
from tasks.quarantine.store import ERASED_CONTENT, OPEN_STATES
from tasks.unit_of_work import UnitOfWork

MAX_RECORDS: Final = 200_000
"""Records of erased messages. Beyond, the oldest are deleted before their retention ends."""
MAX_DELETED: Final = 10_000
"""Records that one sweep deletes."""

_quarantine = table(QuarantinedMessage)
_HAS_CONTENT = _quarantine.c.erased_at.is_(None)


@dataclass(frozen=True)
class QuarantineLimits:
    """Limits of the content that the quarantine keeps."""

    messages: int = 10_000
    bytes: int = 256 * 1024 * 1024


def enforce_limits(uow: UnitOfWork, limits: QuarantineLimits) -> int:
    """Erase the oldest content beyond `limits`, and delete the oldest records; return the number of erased messages."""
    number, size = uow.session.execute(
        select(func.count(), func.coalesce(func.sum(_quarantine.c.size), 0)).where(_HAS_CONTENT)
    ).one()
    erased = _erase_oldest(uow, limits) if number > limits.messages or size > limits.bytes else 0
    _delete_oldest(uow)
    return erased


def _erase_oldest(uow: UnitOfWork, limits: QuarantineLimits) -> int:
    """Erase all content but the newest that is within `limits`."""
    newest = _quarantine.c.id.desc()
    ranked = (
        select(
            _quarantine.c.id,
            func.row_number().over(order_by=newest).label("number"),
            func.sum(func.coalesce(_quarantine.c.size, 0)).over(order_by=newest).label("size"),
        )
        .where(_HAS_CONTENT)
        .subquery()
    )
    last = uow.session.execute(
        select(func.max(ranked.c.id)).where(or_(ranked.c.number > limits.messages, ranked.c.size > limits.bytes))
    ).scalar_one()
    if last is None:
        return 0
    state = case((_quarantine.c.state.in_(OPEN_STATES), "expired"), else_=_quarantine.c.state)
    result = uow.session.execute(
        update(_quarantine)
        .where(_HAS_CONTENT, _quarantine.c.id <= last)
        .values(state=state, erased_at=uow.now, **ERASED_CONTENT)
    )
    return int(result.rowcount)  # type: ignore[attr-defined]  # missing in its stubs


def _delete_oldest(uow: UnitOfWork) -> None:
    """Delete the oldest records of erased messages beyond `MAX_RECORDS`, at most `MAX_DELETED`."""
    number = uow.session.execute(select(func.count()).select_from(_quarantine).where(~_HAS_CONTENT)).scalar_one()
    excess = min(number - MAX_RECORDS, MAX_DELETED)
    if excess > 0:
        oldest = select(_quarantine.c.id).where(~_HAS_CONTENT).order_by(_quarantine.c.id).limit(excess)
        uow.session.execute(delete(_quarantine).where(_quarantine.c.id.in_(oldest.scalar_subquery())))
