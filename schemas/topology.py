# SPDX-License-Identifier: Apache-2.0
"""Names on the wire: queues, tasks and reply queues. Each is defined here, once."""

import re
from typing import Final

RETURNS_QUEUE: Final = "returns"
HOUSEKEEPING_QUEUE: Final = "housekeeping"
PRINT_ACTIONS_QUEUE: Final = "print-actions"
DEAD_LETTER_QUEUE: Final = "dead-letter"
PRINTING_QUEUE_PREFIX: Final = "printing."
REPLY_QUEUE_PREFIX: Final = "reply."

EVENTS_EXCHANGE: Final = "bookdrop.events"
"""RabbitMQ: the exchange to which stations publish. Through `CHECKED_EVENTS_EXCHANGE` it leads to the queue `returns` alone.

A user who may write to the anonymous exchange may write to every queue; a station's user may write to this one alone.
Redis has no exchanges: a station's user may push to the one list."""
CHECKED_EVENTS_EXCHANGE: Final = "bookdrop.events.checked"
"""RabbitMQ: the direct exchange for messages that the first one accepts. Its one binding has the key `returns`."""
REFUSED_EVENTS_EXCHANGE: Final = "bookdrop.events.refused"
"""RabbitMQ: the exchange for messages that the first one refuses. It has no binding, so they return to their sender."""
ANONYMOUS_EXCHANGE: Final = ""
"""The exchange that leads to each queue by its name. RabbitMQ's permissions name it `amq.default`."""

PROCESS_SCAN: Final = "returns.process_scan"
PROCESS_RETURN: Final = "returns.process_return"
PROCESS_UNDO: Final = "returns.process_undo"
RECEIVE_ITEMS: Final = "cycle.receive_items"
LOAN_ITEM: Final = "cycle.loan_item"
DISCHARGE_LOAN: Final = "cycle.discharge_loan"
COMPLETE_REQUEST: Final = "cycle.complete_request"
CONFIRM_SLIP: Final = "slips.confirm"
ASK_REPRINT: Final = "slips.ask_reprint"
STATION_TASKS: Final = (
    PROCESS_SCAN,
    PROCESS_RETURN,
    PROCESS_UNDO,
    RECEIVE_ITEMS,
    LOAN_ITEM,
    DISCHARGE_LOAN,
    COMPLETE_REQUEST,
    CONFIRM_SLIP,
    ASK_REPRINT,
)
"""Tasks that stations may send, on the queue `returns`."""

PURGE_LINKS: Final = "privacy.purge_links"
PRINT_SLIP: Final = "printing.print_slip"
FOLLOW_SLIP: Final = "printing.follow_slip"
RETRY_SLIP: Final = "printing.retry_slip"
REPRINT_SLIP: Final = "printing.reprint_slip"
SLIP_PRINTED: Final = "printing.slip_printed"
CANCEL_SLIP: Final = "printing.cancel_slip"
MOVE_SLIP: Final = "printing.move_slip"
PRINT_ACTIONS: Final = (RETRY_SLIP, REPRINT_SLIP, SLIP_PRINTED, CANCEL_SLIP, MOVE_SLIP)
"""Names of removed tasks, with which earlier releases acted on print jobs. No worker performs them.

They carried the operator as the sender wrote it. A message on the queue `print-actions` is now a dead letter.
"""
SWEEP_PRINTS: Final = "printing.sweep"
SWEEP_OUTBOX: Final = "outbox.sweep"
SWEEP_QUARANTINE: Final = "quarantine.sweep"
ALL_TASKS: Final = frozenset(
    (*STATION_TASKS, PURGE_LINKS, PRINT_SLIP, FOLLOW_SLIP, SWEEP_PRINTS, SWEEP_OUTBOX, SWEEP_QUARANTINE)
)
"""Every task; each belongs to the role of some worker."""

_LONGEST_REPLY_QUEUE = 80

CODE_PATTERN: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$"
"""Codes of branches, stations and printers: lower case letters, digits and single hyphens."""

REPLY_TO_PATTERN: Final = re.compile(r"^reply\.[a-z0-9-]+\Z")
"""Queues to which replies are sent. `reply_to` comes from outside; compare it with this pattern."""

REPLY_QUEUE_EXPIRES_SECONDS: Final = 7 * 24 * 3600
"""Age at which an unused reply queue expires, in seconds. Stations and workers declare it with the same value."""

DELIVERY_LIMIT: Final = 20
"""Redeliveries of a message from dead workers before it becomes a dead letter; equal on both brokers.

RabbitMQ refuses a declaration with another number than the queue has."""


def printing_queue(branch: str) -> str:
    """Queue of the print workers of a branch, for example `printing.main`."""
    return PRINTING_QUEUE_PREFIX + branch


def reply_queue(station: str) -> str:
    """Queue from which a station receives its replies, for example `reply.main-desk-1`."""
    return REPLY_QUEUE_PREFIX + station


def is_reply_queue(name: str | None) -> bool:
    """True if `name` is that of a reply queue. The name comes from a message."""
    return name is not None and len(name) <= _LONGEST_REPLY_QUEUE and REPLY_TO_PATTERN.match(name) is not None


def queue_arguments(queue: str) -> dict[str, object]:
    """AMQP arguments of `queue`. Every program declares it with these, because RabbitMQ refuses a mismatch.

    Work queues are quorum queues with a limit on redeliveries. A reply queue expires after a week without use.
    """
    if queue.startswith(REPLY_QUEUE_PREFIX):
        return {"x-expires": REPLY_QUEUE_EXPIRES_SECONDS * 1000}
    if queue == DEAD_LETTER_QUEUE:
        return {"x-queue-type": "quorum"}
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": DEAD_LETTER_QUEUE,
    }
