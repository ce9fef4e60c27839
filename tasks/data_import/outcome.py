# SPDX-License-Identifier: Apache-2.0
"""The outcome of a row: its effect on its table, and notes on what was not applied."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Effect of a row on its table."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


class Note(StrEnum):
    """A reason why a row, or a part of it, was not applied although the row is valid. It is not a refusal."""

    ALREADY_RETURNED = "already_returned"
    CLOSED = "closed"
    DISCHARGED = "discharged"
    OLDER = "older"
    RETURN_ADDRESS_KEPT = "return_address_kept"
    DISCHARGE_KEPT = "discharge_kept"
    BARCODE_REMOVED = "barcode_removed"

    @property
    def text(self) -> str:
        """The reason as the report shows it after the number of rows."""
        return _TEXTS[self]


_TEXTS = {
    Note.ALREADY_RETURNED: "already returned here",
    Note.CLOSED: "closed here",
    Note.DISCHARGED: "already discharged here",
    Note.OLDER: "older than what happened here; the status here stays",
    Note.RETURN_ADDRESS_KEPT: "the return address entered at receipt stays",
    Note.DISCHARGE_KEPT: "the stored time of the discharge stays",
    Note.BARCODE_REMOVED: "a barcode that was taken off the item here is not added again",
}


@dataclass(frozen=True)
class RowResult:
    """The outcome of one row."""

    outcome: Outcome
    notes: tuple[Note, ...] = ()
    reason: str = ""
    """Why the row was refused."""
    item_id: int | None = None
    """The item that the row added, if it added one."""


def refused(reason: str) -> RowResult:
    """The result of a row that cannot be stored."""
    return RowResult(Outcome.REFUSED, reason=reason)


def unchanged(*notes: Note) -> RowResult:
    """The result of a row that changes nothing."""
    return RowResult(Outcome.UNCHANGED, notes)
