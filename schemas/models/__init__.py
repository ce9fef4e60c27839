# SPDX-License-Identifier: Apache-2.0
"""The tables, a module for each group. Import them from here, so that the metadata contains all of them."""

from schemas.models.columns import Model, table
from schemas.models.locations import Branch, Printer, Station
from schemas.models.messaging import InboxEntry, OutboxEntry, QuarantinedMessage
from schemas.models.monitoring import MetricCell, StationHeartbeat
from schemas.models.printing import PrintAttempt, PrintJob
from schemas.models.requests import Item, ItemBarcode, Loan, Partner, Patron, Request, RequestEvent, UndoPatronLink
from schemas.models.retention import RetentionProgress
from schemas.models.webhooks import WebhookChange, WebhookDelivery, WebhookEndpoint

__all__ = [
    "Branch",
    "InboxEntry",
    "Item",
    "ItemBarcode",
    "Loan",
    "MetricCell",
    "Model",
    "OutboxEntry",
    "Partner",
    "Patron",
    "PrintAttempt",
    "PrintJob",
    "Printer",
    "QuarantinedMessage",
    "Request",
    "RequestEvent",
    "RetentionProgress",
    "Station",
    "StationHeartbeat",
    "UndoPatronLink",
    "WebhookChange",
    "WebhookDelivery",
    "WebhookEndpoint",
    "table",
]
