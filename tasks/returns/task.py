# SPDX-License-Identifier: Apache-2.0
"""The Celery tasks of the Return."""

from celery import shared_task

from schemas.topology import PROCESS_RETURN, PROCESS_SCAN, PROCESS_UNDO
from tasks.events.event_task import EventTask
from tasks.returns.handler import RETURN_HANDLER
from tasks.returns.undo_handler import UNDO_HANDLER


@shared_task(bind=True, base=EventTask, name=PROCESS_SCAN)
def process_scan(self: EventTask, event: object) -> str:
    """Return the item whose barcode was scanned. `event`: a `BarcodeScanned` as JSON. Returns the outcome."""
    return self.process(event, RETURN_HANDLER)


@shared_task(bind=True, base=EventTask, name=PROCESS_RETURN)
def process_return(self: EventTask, event: object) -> str:
    """Return a request that staff chose. `event`: a `ReturnRequested` as JSON. Returns the outcome."""
    return self.process(event, RETURN_HANDLER)


@shared_task(bind=True, base=EventTask, name=PROCESS_UNDO)
def process_undo(self: EventTask, event: object) -> str:
    """Undo a Return. `event`: an `UndoRequested` as JSON. Returns the outcome."""
    return self.process(event, UNDO_HANDLER)
