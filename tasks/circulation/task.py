# SPDX-License-Identifier: Apache-2.0
"""The Celery tasks of circulation around the Return."""

from celery import shared_task

from schemas.topology import COMPLETE_REQUEST, DISCHARGE_LOAN, LOAN_ITEM, RECEIVE_ITEMS
from tasks.circulation.handler import CIRCULATION_HANDLER
from tasks.events.event_task import EventTask


@shared_task(bind=True, base=EventTask, name=RECEIVE_ITEMS)
def receive_items(self: EventTask, event: object) -> str:
    """Receive the items of a request. `event`: an `ItemsReceived` as JSON. Returns the outcome."""
    return self.process(event, CIRCULATION_HANDLER)


@shared_task(bind=True, base=EventTask, name=LOAN_ITEM)
def loan_item(self: EventTask, event: object) -> str:
    """Lend an item to its request's patron. `event`: an `ItemLoaned` as JSON. Returns the outcome."""
    return self.process(event, CIRCULATION_HANDLER)


@shared_task(bind=True, base=EventTask, name=DISCHARGE_LOAN)
def discharge_loan(self: EventTask, event: object) -> str:
    """Discharge a loan without a Return. `event`: a `LoanDischarged` as JSON. Returns the outcome."""
    return self.process(event, CIRCULATION_HANDLER)


@shared_task(bind=True, base=EventTask, name=COMPLETE_REQUEST)
def complete_request(self: EventTask, event: object) -> str:
    """Complete a request that its partner confirmed. `event`: a `RequestCompleted` as JSON. Returns the outcome."""
    return self.process(event, CIRCULATION_HANDLER)
