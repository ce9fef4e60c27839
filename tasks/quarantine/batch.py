# SPDX-License-Identifier: Apache-2.0
"""Decisions about several quarantined messages: the dry run that counts them, and the decision on those alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from sqlalchemy import Connection

from tasks.context import Context
from tasks.operator import Operator
from tasks.quarantine import actions, queries
from tasks.quarantine.actions import DecisionRefusedError
from tasks.quarantine.queries import MessageFilter
from tasks.selection import Selection

MAX_MESSAGES: Final = 200
"""Messages of one decision: the oldest that match. The rest needs a further one."""

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
    """Retry or drop each message, each in a separate transaction."""
    decide = actions.retry if decision == "retry" else actions.drop
    result = DecisionResult()
    for number in messages:
        try:
            result.done[number] = decide(number, operator, context)
        except DecisionRefusedError as refusal:
            result.refused[number] = str(refusal)
    return result
