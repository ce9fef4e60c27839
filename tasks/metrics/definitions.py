# SPDX-License-Identifier: Apache-2.0
"""What workers count and time: names, words, labels and buckets. Pure."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class MetricDefinition:
    """A metric that workers keep: a counter, or a histogram when it has bounds. At most one label."""

    name: str
    words: str
    label: str | None = None
    values: tuple[str, ...] = ("",)
    """All values that the label can have; another one is counted as `other`."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of the histogram's buckets, in seconds."""


_DESK: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_WORK: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)

SCAN_TO_ANSWER: Final = MetricDefinition(
    "bookdrop_scan_to_answer_seconds",
    "From a scan, by its desk's clock, until its answer was given to the broker.",
    "sent",
    ("once", "again"),
    _DESK,
)
QUEUE_WAIT: Final = MetricDefinition(
    "bookdrop_queue_wait_seconds",
    "From the sending of an event, by its desk's clock, until a worker began with it.",
    bounds=_DESK,
)
TRANSACTION: Final = MetricDefinition(
    "bookdrop_transaction_seconds",
    "From the beginning of a worker's transaction, of one event or up to fifty, until its answers were given to the broker.",
    bounds=_WORK,
)
ANSWERS: Final = MetricDefinition(
    "bookdrop_answers_total",
    "Events that were answered for the first time, by outcome.",
    "outcome",
    ("returned", "already_returned", "refused", "done", "already_done", "other"),
)
DUPLICATES: Final = MetricDefinition(
    "bookdrop_duplicates_total",
    "Events that had been answered before: their stored reply was sent again.",
)
QUARANTINED: Final = MetricDefinition(
    "bookdrop_quarantined_total",
    "Messages that were not believed or could not be processed, by reason.",
    "reason",
    (
        "bad_schema",
        "oversize",
        "unknown_version",
        "unknown_station",
        "bad_signature",
        "other_payload",
        "failed",
        "other",
    ),
)
DEAD_LETTERS: Final = ("malformed", "unknown_task", "lost_too_often", "rejected", "unroutable")
"""Reasons for which the broker, or a worker before any task, gave up on a message."""
SLIP_TRIES: Final = MetricDefinition(
    "bookdrop_slip_tries_total",
    "Tries at a slip that came to an end, by the state they left it in.",
    "state",
    ("accepted", "done", "held", "failed_safe", "unknown", "other"),
)
SLIP_SENT: Final = MetricDefinition(
    "bookdrop_return_to_slip_seconds",
    "From a Return (or from the order of a copy) until its printer had taken the slip.",
    bounds=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86400.0),
)
METRICS_RECORDED: Final = (
    SCAN_TO_ANSWER, QUEUE_WAIT, TRANSACTION, ANSWERS, DUPLICATES, QUARANTINED, SLIP_TRIES, SLIP_SENT,
)  # fmt: skip
