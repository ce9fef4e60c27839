# SPDX-License-Identifier: Apache-2.0
"""Texts about a print job for staff. Pure."""

from schemas.print_jobs import PrintState as State


def describe(state: State, printer: str | None, reason: str | None = None) -> str:
    """The text for a slip in `state`. No text claims that a slip was printed before staff have seen the paper."""
    where = f" {printer}" if printer else ""
    because = f": {reason}" if reason else ""
    return {
        State.REQUESTED: "Slip is waiting for its printer",
        State.CLAIMED: f"Slip is on its way to the printer{where}",
        State.RENDERED: f"Slip is on its way to the printer{where}",
        State.SENDING: f"Slip is being sent to the printer{where}",
        State.ACCEPTED: f"Slip sent to the printer{where}{because}",
        State.DONE: f"Slip sent to the printer{where}{because}",
        State.CONFIRMED: "Slip was seen in its item",
        State.HELD: f"Slip is held, the Return stands{because}",
        State.FAILED_SAFE: f"Slip will be tried again, the Return stands{because}",
        State.UNKNOWN: f"Look at the printer{where}: the slip may be there or not{because}",
        State.EXPIRED: "Slip was not printed in time: reprint it if the item is still here",
        State.CANCELLED: "Slip was cancelled",
    }[state]


def describe_waiting(printer: str | None, reason: str | None) -> str:
    """The text for a slip that its printer has accepted and cannot print until staff attend to it."""
    return f"Slip waits in the printer {printer}: {reason}" if printer else f"Slip waits in its printer: {reason}"
