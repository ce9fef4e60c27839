# SPDX-License-Identifier: Apache-2.0
"""The wire contract: the name of every queue, task and reply channel, once."""

import re
from typing import Final

RETURNS_QUEUE: Final = "returns"
HOUSEKEEPING_QUEUE: Final = "housekeeping"
DEAD_LETTER_QUEUE: Final = "dead-letter"
PRINTING_QUEUE_PREFIX: Final = "printing."
REPLY_QUEUE_PREFIX: Final = "reply."

PROCESS_SCAN: Final = "returns.process_scan"
PROCESS_RETURN: Final = "returns.process_return"
PRINT_SLIP: Final = "printing.print_slip"
SWEEP_PRINTS: Final = "printing.sweep"
SWEEP_OUTBOX: Final = "outbox.sweep"

_LONGEST_REPLY_QUEUE = 80

CODE_PATTERN: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$"
"""Codes of branches, stations and printers: lower case letters, digits and single hyphens."""

REPLY_TO_PATTERN: Final = re.compile(r"^reply\.[a-z0-9-]+\Z")
"""The only queues a reply is ever sent to. `reply_to` comes from outside and is checked against this."""

REPLY_QUEUE_EXPIRES_SECONDS: Final = 7 * 24 * 3600
"""How long a reply queue that nobody reads is kept, in seconds. Station and worker declare it alike."""


def printing_queue(branch: str) -> str:
    """Queue of the print workers of a branch, such as `printing.main`."""
    return PRINTING_QUEUE_PREFIX + branch


def reply_queue(station: str) -> str:
    """Queue on which a station hears its answers, such as `reply.main-desk-1`."""
    return REPLY_QUEUE_PREFIX + station


def is_reply_queue(name: str | None) -> bool:
    """Tell whether `name`, taken from a message, may be answered to."""
    return name is not None and len(name) <= _LONGEST_REPLY_QUEUE and REPLY_TO_PATTERN.match(name) is not None


def queue_arguments(queue: str) -> dict[str, object]:
    """AMQP arguments with which everybody declares `queue`; a mismatch would be refused by RabbitMQ.

    Work queues are quorum queues with a bound on redeliveries; a reply queue goes when nobody has used it for a week.
    """
    if queue.startswith(REPLY_QUEUE_PREFIX):
        return {"x-expires": REPLY_QUEUE_EXPIRES_SECONDS * 1000}
    if queue == DEAD_LETTER_QUEUE:
        return {"x-queue-type": "quorum"}
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": DEAD_LETTER_QUEUE,
    }
