# SPDX-License-Identifier: Apache-2.0
"""The actions that an operator can perform on a print job in each state: buttons, descriptions, calls."""

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
class SlipAction:
    """A button, and the description above its form."""

    name: Name
    button: str
    description: str
    """Effect of the action, for the operator who is about to confirm it."""


SLIP_ACTIONS: Final = MappingProxyType(
    {
        action.name: action
        for action in (
            SlipAction(
                "retry",
                "Retry",
                "The worker sends the slip now, and the pause of its printer ends. The slip was not sent before, so there"
                " is only one.",
            ),
            SlipAction(
                "printed",
                "It printed",
                "You saw this slip on paper. Its state becomes done. Nothing is sent.",
            ),
            SlipAction(
                "reprint",
                "Reprint",
                "The worker prints a second slip, marked COPY. The first one may still be in a book: look for it before.",
            ),
            SlipAction("move", "Move", "Another printer prints the slip, now. The slip was not sent before."),
        )
    }
)


def available_actions(state: State, *, voided: bool = False) -> tuple[SlipAction, ...]:
    """Return the actions for a print job in `state`: none if its Return was undone or a worker is sending it."""
    if voided or state in IN_HAND:
        return ()
    names: tuple[Name, ...] = ("reprint",)
    if state in WAITING:
        names = ("retry", "move")
    elif state in RECONCILABLE:
        names = ("printed", "reprint")
    return tuple(SLIP_ACTIONS[name] for name in names)


def perform(name: Name, slip: UUID, operator: Operator, context: Context, *, to: str = "") -> Done:
    """Perform the action and record it in the request's history.

    Raises `RefusedActionError` if the state of the print job does not allow it.
    """
    match name:
        case "retry":
            return actions.retry(slip, operator, context)
        case "printed":
            return actions.mark_printed(slip, operator, context)
        case "reprint":
            return actions.reprint(slip, operator, context)
        case "move":
            return actions.move(slip, to, operator, context)
        case _:
            assert_never(name)
