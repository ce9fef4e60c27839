# SPDX-License-Identifier: Apache-2.0
"""The Celery tasks of the Return."""

from typing import Any

from celery import shared_task

from schemas.topology import PROCESS_RETURN, PROCESS_SCAN, PROCESS_UNDO
from tasks.events.event_task import EventTask
from tasks.events.processing import HANDLERS, process
from tasks.returns.handler import return_items
from tasks.returns.undo_handler import undo_returns

HANDLERS.update({PROCESS_SCAN: return_items, PROCESS_RETURN: return_items})


@shared_task(bind=True, base=EventTask, name=PROCESS_SCAN)
def process_scan(self: Any, event: object) -> str:
    """Return the item whose barcode was scanned. `event`: a `BarcodeScanned` as JSON. Gives the outcome."""
    return process(self, event, return_items)


@shared_task(bind=True, base=EventTask, name=PROCESS_RETURN)
def process_return(self: Any, event: object) -> str:
    """Return a request that staff chose. `event`: a `ReturnRequested` as JSON. Gives the outcome."""
    return process(self, event, return_items)


@shared_task(bind=True, base=EventTask, name=PROCESS_UNDO)
def process_undo(self: Any, event: object) -> str:
    """Take a Return back. `event`: an `UndoRequested` as JSON. Gives the outcome."""
    return process(self, event, undo_returns)
