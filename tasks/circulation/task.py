# SPDX-License-Identifier: Apache-2.0
"""The Celery tasks of the cycle around the Return."""

from typing import Any

from celery import shared_task

from schemas.topology import COMPLETE_REQUEST, DISCHARGE_LOAN, LOAN_ITEM, RECEIVE_ITEMS
from tasks.circulation.handler import handle_circulation_events
from tasks.events.event_task import EventTask
from tasks.events.processing import process


@shared_task(bind=True, base=EventTask, name=RECEIVE_ITEMS)
def receive_items(self: Any, event: object) -> str:
    """Take in a parcel. `event`: an `ItemsReceived` as JSON. Gives the outcome."""
    return process(self, event, handle_circulation_events)


@shared_task(bind=True, base=EventTask, name=LOAN_ITEM)
def loan_item(self: Any, event: object) -> str:
    """Lend an item to its request's reader. `event`: an `ItemLoaned` as JSON. Gives the outcome."""
    return process(self, event, handle_circulation_events)


@shared_task(bind=True, base=EventTask, name=DISCHARGE_LOAN)
def discharge_loan(self: Any, event: object) -> str:
    """End a loan without a Return. `event`: a `LoanDischarged` as JSON. Gives the outcome."""
    return process(self, event, handle_circulation_events)


@shared_task(bind=True, base=EventTask, name=COMPLETE_REQUEST)
def complete_request(self: Any, event: object) -> str:
    """Note that the partner has its items back. `event`: a `RequestCompleted` as JSON. Gives the outcome."""
    return process(self, event, handle_circulation_events)
