# SPDX-License-Identifier: Apache-2.0
"""Statuses of a borrowing request, with the labels of Ex Libris Alma."""

from enum import StrEnum


class RequestStatus(StrEnum):
    """Status of a borrowing request. The value is stored and sent; staff see the `label`."""

    CREATED = "created"
    READY_TO_BE_SENT = "ready_to_be_sent"
    REQUEST_SENT = "request_sent"
    WILL_SUPPLY = "will_supply"
    CONDITIONAL = "conditional"
    SHIPPED_PHYSICALLY = "shipped_physically"
    RECEIVED = "received"
    RECEIVED_NOT_FOR_LOAN = "received_not_for_loan"
    LOANED = "loaned"
    RENEW_REQUESTED = "renew_requested"
    RENEWED = "renewed"
    RENEW_NOT_ACCEPTED = "renew_not_accepted"
    MEDIATED_RENEWAL = "mediated_renewal"
    OVERDUE = "overdue"
    RECALLED = "recalled"
    RETURNED_BY_PATRON = "returned_by_patron"
    DAMAGED = "damaged"
    LOST = "lost"
    DECLARED_LOST = "declared_lost"
    RETURNED_TO_PARTNER = "returned_to_partner"
    COMPLETED = "completed"
    CANCELED_BY_PARTNER = "canceled_by_partner"
    CANCELED_BY_PATRON = "canceled_by_patron"
    CANCELED_BY_STAFF = "canceled_by_staff"
    EXPIRED = "expired"
    REJECTED = "rejected"

    @property
    def label(self) -> str:
        """The status as staff see it, for example "Returned item to partner"."""
        return _LABELS[self]

    @classmethod
    def parse(cls, text: str) -> "RequestStatus":
        """Parse a stored value or a label, in any case and with any spaces.

        Raises `ValueError` for any other text.
        """
        folded = " ".join(text.replace("_", " ").split()).casefold()
        for status in cls:
            if folded in (status.value.replace("_", " "), _LABELS[status].casefold()):
                return status
        raise ValueError(f"{text!r} is not a status of a borrowing request")


_LABELS = {
    RequestStatus.CREATED: "Created borrowing request",
    RequestStatus.READY_TO_BE_SENT: "Ready to be sent",
    RequestStatus.REQUEST_SENT: "Request sent to partner",
    RequestStatus.WILL_SUPPLY: "Will supply",
    RequestStatus.CONDITIONAL: "Conditional",
    RequestStatus.SHIPPED_PHYSICALLY: "Shipped physically",
    RequestStatus.RECEIVED: "Physically received by library",
    RequestStatus.RECEIVED_NOT_FOR_LOAN: "Received - not for loan",
    RequestStatus.LOANED: "Loaned to patron",
    RequestStatus.RENEW_REQUESTED: "Renew requested",
    RequestStatus.RENEWED: "Renewed by partner",
    RequestStatus.RENEW_NOT_ACCEPTED: "Renew request not accepted",
    RequestStatus.MEDIATED_RENEWAL: "Mediated patron renewal",
    RequestStatus.OVERDUE: "Overdue request",
    RequestStatus.RECALLED: "Recalled by partner",
    RequestStatus.RETURNED_BY_PATRON: "Returned by patron",
    RequestStatus.DAMAGED: "Report damaged item to partner",
    RequestStatus.LOST: "Report lost item to partner",
    RequestStatus.DECLARED_LOST: "Declared lost by partner",
    RequestStatus.RETURNED_TO_PARTNER: "Returned item to partner",
    RequestStatus.COMPLETED: "Request completed",
    RequestStatus.CANCELED_BY_PARTNER: "Canceled by partner",
    RequestStatus.CANCELED_BY_PATRON: "Canceled by patron",
    RequestStatus.CANCELED_BY_STAFF: "Canceled by staff",
    RequestStatus.EXPIRED: "Expired",
    RequestStatus.REJECTED: "Rejected by partner",
}

CLOSED = frozenset(
    {
        RequestStatus.RETURNED_TO_PARTNER,
        RequestStatus.COMPLETED,
        RequestStatus.CANCELED_BY_PARTNER,
        RequestStatus.CANCELED_BY_PATRON,
        RequestStatus.CANCELED_BY_STAFF,
        RequestStatus.EXPIRED,
        RequestStatus.REJECTED,
    }
)
"""Statuses of a request whose item has left the library, or never comes. A reused barcode does not match them."""
