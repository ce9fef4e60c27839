# SPDX-License-Identifier: Apache-2.0
"""The actions that an operator can perform on a print job in each state: buttons, descriptions, calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, assert_never
from uuid import UUID

from schemas.print_jobs import IN_HAND, RECONCILABLE, TRANSITIONS, WAITING
from schemas.print_jobs import PrintState as State
from tasks.context import Context
from tasks.operator import Operator
from tasks.printing import actions
from tasks.printing.actions import Done
from tasks.printing.batch import BatchAction

Name = Literal["retry", "printed", "reprint", "move", "cancel"]


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
                "The worker tries the slip's printer now: the pause of the printer ends, and its line is sent, the oldest"
                " slip first. The slip was not sent before, so there is only one.",
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
            SlipAction(
                "move",
                "Move",
                "The slip leaves the line of its printer and joins that of another one. It was not sent before.",
            ),
            SlipAction(
                "cancel",
                "Cancel slip",
                "No worker prints the slip any more; the station is notified. The Return stands. A copy can be ordered"
                " later (Reprint).",
            ),
        )
    }
)

BATCH_DESCRIPTIONS: Final[Mapping[BatchAction, str]] = MappingProxyType(
    {
        "retry": "The workers try the printers of these slips now: the pause of each printer ends, and its line is sent, the"
        " oldest slip first. None of the slips was sent before.",
        "move": "The slips leave the lines of their printers and join that of another one. None was sent before.",
        "cancel": "No worker prints the slips any more; their stations are notified. The Returns stand. Copies can be"
        " ordered later (Reprint).",
        "printed": "You saw each of these slips on paper. Their state becomes done. Nothing is sent.",
    }
)
"""Effect of each action on several slips."""


def available_actions(state: State, *, voided: bool = False) -> tuple[SlipAction, ...]:
    """Return the actions for a print job in `state`: none if its Return was undone or a worker is sending it."""
    if voided or state in IN_HAND:
        return ()
    names: tuple[Name, ...] = ("reprint",)
    if state in WAITING:
        names = ("retry", "move")
    elif state in RECONCILABLE:
        names = ("printed", "reprint")
    if State.CANCELLED in TRANSITIONS[state]:
        names = (*names, "cancel")
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
        case "cancel":
            return actions.cancel(slip, operator, context)
        case _:
            assert_never(name)
