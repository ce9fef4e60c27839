# SPDX-License-Identifier: Apache-2.0
"""Precedence between the status of an imported row and the events of this system. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from schemas.request_status import CLOSED
from schemas.request_status import RequestStatus as Status
from tasks.data_import.outcome import Note

PHASES: Final[Mapping[Status, int]] = MappingProxyType(
    {
        status: phase
        for phase, statuses in enumerate(
            (
                (Status.CREATED, Status.READY_TO_BE_SENT, Status.REQUEST_SENT),
                (Status.WILL_SUPPLY, Status.CONDITIONAL),
                (Status.SHIPPED_PHYSICALLY,),
                # An item that was received is in the house, whatever an export states about the order.
                (
                    Status.CANCELED_BY_PARTNER,
                    Status.CANCELED_BY_PATRON,
                    Status.CANCELED_BY_STAFF,
                    Status.EXPIRED,
                    Status.REJECTED,
                ),
                (Status.RECEIVED, Status.RECEIVED_NOT_FOR_LOAN),
                (Status.LOANED,),
                (
                    Status.RENEW_REQUESTED,
                    Status.RENEWED,
                    Status.RENEW_NOT_ACCEPTED,
                    Status.MEDIATED_RENEWAL,
                    Status.OVERDUE,
                    Status.RECALLED,
                ),
                (Status.RETURNED_BY_PATRON, Status.DAMAGED, Status.LOST, Status.DECLARED_LOST),
                (Status.RETURNED_TO_PARTNER,),
                (Status.COMPLETED,),
            )
        )
        for status in statuses
    }
)
"""The phase of each status in the cycle of a request, 0 for the first."""


@dataclass(frozen=True)
class PastEvents:
    """The effect of this system's events on the status of a request."""

    status: Status | None = None
    """The status that an event set last; `None` when no event set one."""
    undone: Status | None = None
    """The status that an undo reversed, when no event set a status after it."""


NO_EVENTS: Final = PastEvents()


def closed_note(stored: Status, row: Status | None) -> Note | None:
    """The note on a row that is older than the end of its request, so that nothing of it applies; otherwise `None`."""
    if row is None or stored not in CLOSED:
        return None
    if row in CLOSED and (stored is not Status.COMPLETED or row is Status.COMPLETED):
        return None
    return note_of_closed(stored)


def note_of_closed(stored: Status) -> Note:
    """The note on a row of a request that is closed."""
    return Note.ALREADY_RETURNED if PHASES[stored] >= PHASES[Status.RETURNED_TO_PARTNER] else Note.CLOSED


def is_older(row: Status, events: PastEvents) -> bool:
    """True when the row's status is of an earlier phase than an event's, or one that an undo reversed."""
    if row is events.undone:
        return True
    return events.status is not None and PHASES[row] < PHASES[events.status]
