# SPDX-License-Identifier: Apache-2.0
"""What a person can decide about a slip in each state: the buttons, their words, and what is done."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, assert_never
from uuid import UUID

from schemas.print_jobs import IN_HAND, RECONCILABLE, WAITING
from schemas.print_jobs import PrintState as State
from tasks.context import Context
from tasks.operator import Operator
from tasks.printing import actions
from tasks.printing.actions import Done

Name = Literal["retry", "printed", "reprint", "move"]


@dataclass(frozen=True)
class Decision:
    """A button, and what stands above its form."""

    name: Name
    button: str
    words: str
    """What will happen, for whoever is about to press it."""


DECISIONS: Final = MappingProxyType(
    {
        decision.name: decision
        for decision in (
            Decision(
                "retry",
                "Retry",
                "The slip is tried again now, and its printer with it. It was not sent before, so there is one slip.",
            ),
            Decision(
                "printed",
                "It printed",
                "You saw this slip on paper: nobody need look for it any more. Nothing is sent.",
            ),
            Decision(
                "reprint",
                "Reprint",
                "A second slip is printed, and says COPY on it. The first one may still be in a book: look for it before.",
            ),
            Decision("move", "Move", "The slip goes to another printer, now. It was not sent before."),
        )
    }
)


def open_to(state: State, *, voided: bool = False) -> tuple[Decision, ...]:
    """What can be decided about a slip in `state`. Nothing, when its Return was undone or a worker has it in hand."""
    if voided or state in IN_HAND:
        return ()
    names: tuple[Name, ...] = ("reprint",)
    if state in WAITING:
        names = ("retry", "move")
    elif state in RECONCILABLE:
        names = ("printed", "reprint")
    return tuple(DECISIONS[name] for name in names)


def decide(name: Name, slip: UUID, by: Operator, here: Context, *, to: str = "") -> Done:
    """Do it, with a line in the request's history. Raises `RefusedActionError` when it cannot be done (any more)."""
    match name:
        case "retry":
            return actions.retry(slip, by, here)
        case "printed":
            return actions.mark_printed(slip, by, here)
        case "reprint":
            return actions.reprint(slip, by, here)
        case "move":
            return actions.move(slip, to, by, here)
        case _:
            assert_never(name)
