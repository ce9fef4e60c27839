# SPDX-License-Identifier: Apache-2.0
"""The Celery tasks of stations' events about slips."""

from celery import shared_task

from schemas.topology import ASK_REPRINT, CONFIRM_SLIP
from tasks.events.event_task import EventTask
from tasks.printing.station_handler import SLIP_HANDLER


@shared_task(bind=True, base=EventTask, name=CONFIRM_SLIP)
def confirm_slip(self: EventTask, event: object) -> str:
    """Confirm that a slip is in its item. `event`: a `SlipSeen` as JSON. Returns the outcome."""
    return self.process(event, SLIP_HANDLER)


@shared_task(bind=True, base=EventTask, name=ASK_REPRINT)
def ask_reprint(self: EventTask, event: object) -> str:
    """Print a copy of a slip. `event`: a `ReprintRequested` as JSON. Returns the outcome."""
    return self.process(event, SLIP_HANDLER)
