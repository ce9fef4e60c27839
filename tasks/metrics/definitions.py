# SPDX-License-Identifier: Apache-2.0
"""The counters and histograms of the worker processes: names, descriptions, labels and buckets. Pure."""

from dataclasses import dataclass
from typing import Final

from schemas.reasons import DeadLetterReason, RejectionReason
from tasks.privacy.policy import ContentKind


@dataclass(frozen=True)
class MetricDefinition:
    """A counter, or a histogram if it has bounds. It has at most one label."""

    name: str
    description: str
    label: str | None = None
    values: tuple[str, ...] = ("",)
    """All values of the label. The recorder counts any other value as `other`."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of the histogram's buckets, in seconds."""


_STATION_BUCKETS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_WORKER_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)

SCAN_TO_REPLY: Final = MetricDefinition(
    "bookdrop_scan_to_answer_seconds",
    "Time from a scan, by the station's clock, until the worker published its reply.",
    "sent",
    ("once", "again"),
    _STATION_BUCKETS,
)
QUEUE_WAIT: Final = MetricDefinition(
    "bookdrop_queue_wait_seconds",
    "Time from sending an event, by the station's clock, until a worker started to process it.",
    bounds=_STATION_BUCKETS,
)
TRANSACTION: Final = MetricDefinition(
    "bookdrop_transaction_seconds",
    "Time from the start of a worker's transaction, of one event or up to fifty, until the worker published the replies.",
    bounds=_WORKER_BUCKETS,
)
REPLIES: Final = MetricDefinition(
    "bookdrop_answers_total",
    "Events processed for the first time, by outcome.",
    "outcome",
    ("returned", "already_returned", "refused", "done", "already_done", "other"),
)
DUPLICATES: Final = MetricDefinition(
    "bookdrop_duplicates_total",
    "Events processed before, for which the worker published the stored reply again.",
)
QUARANTINED: Final = MetricDefinition(
    "bookdrop_quarantined_total",
    "Messages that failed validation or could not be processed, by reason.",
    "reason",
    (*RejectionReason, "other"),
)
DEAD_LETTERS: Final = MetricDefinition(
    "bookdrop_dead_letters_total",
    "Dead letters that housekeeping moved into the quarantine, by reason.",
    "reason",
    (*DeadLetterReason, "other"),
)
QUARANTINE_ERASED: Final = MetricDefinition(
    "bookdrop_quarantine_erased_total",
    "Quarantined messages whose content was erased before its retention ended, because the quarantine was full.",
)
PRINT_ATTEMPTS: Final = MetricDefinition(
    "bookdrop_slip_tries_total",
    "Completed print attempts, by the resulting state of the print job.",
    "state",
    ("accepted", "done", "held", "failed_safe", "unknown", "other"),
)
RETURN_TO_SLIP: Final = MetricDefinition(
    "bookdrop_return_to_slip_seconds",
    "Time from a Return, or from the request for a copy, until the printer accepted the slip.",
    bounds=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86400.0),
)
PATRON_LINKS: Final = "patron_links"
"""Value of the label `kind` for links to patrons, which are deleted and not erased."""
ERASED: Final = MetricDefinition(
    "bookdrop_erased_rows_total",
    "Rows whose expired content housekeeping erased, and links to patrons that it deleted, by kind.",
    "kind",
    (*ContentKind, PATRON_LINKS, "other"),
)
WORKER_METRICS: Final = (
    SCAN_TO_REPLY, QUEUE_WAIT, TRANSACTION, REPLIES, DUPLICATES, QUARANTINED, DEAD_LETTERS, QUARANTINE_ERASED,
    PRINT_ATTEMPTS, RETURN_TO_SLIP, ERASED,
)  # fmt: skip
"""All metrics that worker processes record. The exporter adds those that it reads at a scrape."""
