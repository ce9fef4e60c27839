# SPDX-License-Identifier: Apache-2.0
"""Decisions about several quarantined messages: the dry run that counts them, and the decision on those alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from tasks.context import Context
from tasks.operator import Operator
from tasks.quarantine import actions, queries
from tasks.quarantine.actions import DecisionRefusedError
from tasks.quarantine.queries import MessageFilter
from tasks.selection import Selection

log = structlog.get_logger()

MAX_MESSAGES: Final = 200
"""Messages of one decision: the oldest that match. The rest needs a further one."""

NOT_TRIED: Final = "The broker is unavailable, so the further messages were not tried."
DATABASE_FAILED: Final = "The database failed meanwhile, so the further messages were not changed."

Decision = Literal["retry", "drop"]


@dataclass(frozen=True)
class DecisionResult:
    """The text for the operator about each message, by its number."""

    done: dict[int, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


def select_matching(connection: Connection, matching: MessageFilter) -> Selection[int]:
    """Select the messages that match and wait for a decision. Those that are requeued already are left out."""
    found = queries.kept_ids(connection, replace(matching, limit=MAX_MESSAGES))
    total = len(found) if len(found) < MAX_MESSAGES else queries.count_kept(connection, matching)
    return Selection(tuple(found), total)


def perform(decision: Decision, messages: Sequence[int], operator: Operator, context: Context) -> DecisionResult:
    """Retry or drop each message, each in a separate transaction.

    When database or broker fail, the messages after that are reported as refused. If the database fails at the first
    message, its error is raised.
    """
    decide = actions.retry if decision == "retry" else actions.drop
    result = DecisionResult()
    for place, number in enumerate(messages):
        try:
            result.done[number] = decide(number, operator, context)
        except DecisionRefusedError as refusal:
            result.refused[number] = str(refusal)
            if (
                refusal.__cause__ is not None
            ):  # the broker's error: a further message would wait for its timeout as well
                result.refused.update(dict.fromkeys(messages[place + 1 :], NOT_TRIED))
                break
        except SQLAlchemyError as error:
            if not result.done:
                raise
            log.warning("database_not_reached", error=type(error).__name__)
            result.refused.update(dict.fromkeys(messages[place:], DATABASE_FAILED))
            break
    return result
