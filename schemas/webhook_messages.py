# SPDX-License-Identifier: Apache-2.0
"""Messages that webhooks send to the library's own system. No type here has a field for a patron or for a typed text.

The form is that of Standard Webhooks 1.0.0: `type`, `timestamp` and `data`. Within a type changes are additive only:
receivers ignore fields that they do not know. Stored identifiers are not checked again: a value that a later release
refuses must not stop the messages after it.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from schemas.events import Message
from schemas.request_status import RequestStatus


class WebhookType(StrEnum):
    """The types of events that an endpoint receives."""

    RETURNED = "request.returned"
    ITEM_CHECKED_IN = "item.checked_in"
    DISCHARGED = "loan.discharged"
    DISCHARGED_LATE = "loan.discharged_late"
    UNDONE = "return.undone"
    COMPLETED = "request.completed"

    @property
    def meaning(self) -> str:
        """For the documentation."""
        return _MEANINGS[self]


_MEANINGS: Final = {
    WebhookType.RETURNED: "The Return of a request: its status became “Returned item to partner”.",
    WebhookType.ITEM_CHECKED_IN: "An item was checked in for its Return; other items of the request are still missing.",
    WebhookType.DISCHARGED: "A loan was discharged, and the item stays in the library for now.",
    WebhookType.DISCHARGED_LATE: "A loan was discharged after the lender had confirmed the Return; the status stayed.",
    WebhookType.UNDONE: "A Return or check-in was undone.",
    WebhookType.COMPLETED: "The lender confirmed that it has its items.",
}


class WebhookItem(Message):
    """An item of the event."""

    position: Annotated[int, Field(ge=1)]
    """1 for the first item of its request."""
    barcodes: tuple[str, ...]
    """All barcodes of the item at the time of the message, in the order in which they were added."""


class WebhookData(Message):
    """The event: request, items, lender, place, and the status before and after."""

    cursor: Annotated[int, Field(ge=1)]
    """Number of the line of history, increasing for each request; the `cursor` of `bookdrop export returns`."""
    event: UUID
    """Id of the station's event."""
    request: str
    """External identifier of the request."""
    status_before: RequestStatus | None
    status_after: RequestStatus | None
    at: AwareDatetime
    """Time of the event at the station."""
    recorded_at: AwareDatetime
    """Time at which the worker stored it."""
    branch: str | None
    """Branch of the station."""
    station: str | None
    lender: str
    """Code of the lending library, usually its ISIL."""
    items: tuple[WebhookItem, ...]
    """Items that the event concerns; empty for `request.completed`, which concerns all items of the request."""
    loans_discharged: Annotated[int, Field(ge=0)]
    """Number of loans that the event discharged."""
    undoes: UUID | None = None
    """`return.undone`: id of the event that was undone."""
    loans_reopened: bool | None = None
    """`return.undone`: true if the loans that the undone event had discharged are open again."""


class WebhookEvent(Message):
    """The body of a webhook."""

    type: WebhookType
    timestamp: AwareDatetime
    """Time of the event at the station, as in `data.at`."""
    data: WebhookData


class WebhookTestData(Message):
    """The content of a test message."""

    endpoint: Annotated[int, Field(ge=1)]
    """Number of the endpoint in bookdrop."""


class WebhookTest(Message):
    """The body of `bookdrop webhooks test`. Receivers acknowledge it and change nothing."""

    type: Literal["webhook.test"] = "webhook.test"
    timestamp: AwareDatetime
    data: WebhookTestData
