# SPDX-License-Identifier: Apache-2.0
"""The Celery tasks of what desks say of slips."""

from typing import Any

from celery import shared_task

from schemas.topology import ASK_REPRINT, CONFIRM_SLIP
from tasks.events.event_task import EventTask
from tasks.events.processing import process
from tasks.printing.station_handler import handle_slip_events


@shared_task(bind=True, base=EventTask, name=CONFIRM_SLIP)
def confirm_slip(self: Any, event: object) -> str:
    """A slip was seen in its item. `event`: a `SlipSeen` as JSON. Gives the outcome."""
    return process(self, event, handle_slip_events)


@shared_task(bind=True, base=EventTask, name=ASK_REPRINT)
def ask_reprint(self: Any, event: object) -> str:
    """Staff want another slip. `event`: a `ReprintRequested` as JSON. Gives the outcome."""
    return process(self, event, handle_slip_events)
