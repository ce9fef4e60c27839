# SPDX-License-Identifier: Apache-2.0
"""Texts that staff read about a print job."""

from schemas.print_jobs import PrintState as State


def words(state: State, printer: str | None, why: str | None = None) -> str:
    """What staff read of a slip in `state`. "Printed" is never said before somebody saw the paper."""
    where = f" {printer}" if printer else ""
    because = f": {why}" if why else ""
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


def waiting_words(printer: str | None, why: str | None) -> str:
    """What staff read of a slip that its printer has and cannot print until somebody comes."""
    return f"Slip waits in the printer {printer}: {why}" if printer else f"Slip waits in its printer: {why}"
