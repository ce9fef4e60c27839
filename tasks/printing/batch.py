# SPDX-License-Identifier: Apache-2.0
"""Actions on several slips: the dry run that counts them, and the action on exactly the slips that were counted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal
from uuid import UUID

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from schemas.print_jobs import RECONCILABLE, WAITING
from schemas.print_jobs import PrintState as State
from tasks.context import Context
from tasks.operator import Operator
from tasks.ports import PendingMessage
from tasks.printing import actions, queries
from tasks.printing.actions import Done, RefusedActionError
from tasks.printing.queries import SlipFilter
from tasks.selection import Selection

log = structlog.get_logger()

MAX_SLIPS: Final = 1000
"""Slips of one action: the oldest that match. The rest needs a further action."""

BatchAction = Literal["retry", "move", "cancel", "printed"]
"""Actions on several slips. Reprint is not one of them: each copy needs a look at the first slip."""

ALLOWED_STATES: Final[Mapping[BatchAction, frozenset[State]]] = MappingProxyType(
    {
        "retry": WAITING,
        "move": WAITING,
        "cancel": WAITING | {State.UNKNOWN},
        "printed": RECONCILABLE,
    }
)
"""States of the slips that each action selects, out of those that match."""

DATABASE_FAILED: Final = "The database failed meanwhile, so this slip and those after it were not changed."

_PUBLISHED_TOGETHER: Final = 100
"""Slips whose messages are published in one round trip."""


@dataclass(frozen=True)
class Refusal:
    """A slip whose state did not allow the action."""

    slip: UUID
    message: str


@dataclass(frozen=True)
class BatchResult:
    """The result for each slip."""

    done: list[Done] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


def select_matching(connection: Connection, action: BatchAction, slip_filter: SlipFilter) -> Selection[UUID]:
    """Select the slips that match the filter and whose state allows the action. The filter's limit is not used."""
    allowed = ALLOWED_STATES[action]
    found = queries.ids(connection, replace(slip_filter, limit=MAX_SLIPS), allowed)
    total = len(found)
    if total == MAX_SLIPS:
        total = queries.count_all(connection, slip_filter, allowed)
    return Selection(tuple(found), total)


def select_named(connection: Connection, action: BatchAction, slips: Sequence[UUID]) -> Selection[UUID]:
    """Select those of the named slips whose state allows the action."""
    return select_matching(connection, action, SlipFilter(ids=slips[:MAX_SLIPS]))


def perform(
    action: BatchAction, slips: Sequence[UUID], operator: Operator, context: Context, *, to: str = ""
) -> BatchResult:
    """Perform the action on each slip, in a separate transaction, and report the slips that refused it.

    When the database fails after some slips are changed, the others are reported as refused; before that, its error is
    raised. `to` is the printer of a move.
    """
    result = BatchResult()
    collected = _CollectingPublisher()
    collecting = replace(context, publisher=collected)
    act = _function(action, to)
    for number, slip in enumerate(slips, 1):
        try:
            result.done.append(act(slip, operator, collecting))
        except RefusedActionError as refusal:
            result.refused.append(Refusal(slip, str(refusal)))
        except SQLAlchemyError as error:
            if not result.done:
                raise
            log.warning("database_not_reached", error=type(error).__name__)
            result.refused.extend(Refusal(each, DATABASE_FAILED) for each in slips[number - 1 :])
            break
        if number % _PUBLISHED_TOGETHER == 0:
            context.publisher.publish_outbox(collected.take())
    context.publisher.publish_outbox(collected.take())
    return result


def _function(action: BatchAction, to: str) -> Callable[[UUID, Operator, Context], Done]:
    match action:
        case "retry":
            return actions.retry
        case "move":
            return lambda slip, operator, context: actions.move(slip, to, operator, context)
        case "cancel":
            return actions.cancel
        case "printed":
            return actions.mark_printed


class _CollectingPublisher:
    """A `Publisher` that collects committed messages, so that those of many transactions go out in one round trip."""

    def __init__(self) -> None:
        self._entries: list[PendingMessage] = []

    def publish_outbox(self, entries: Sequence[PendingMessage]) -> int:
        """Collect the entries; none is published yet."""
        self._entries += entries
        return 0

    def take(self) -> list[PendingMessage]:
        """Remove and return the collected entries."""
        entries, self._entries = self._entries, []
        return entries
