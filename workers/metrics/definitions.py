# SPDX-License-Identifier: Apache-2.0
"""Definition of every metric that the exporter serves: name, kind, labels, description and source."""

from dataclasses import dataclass
from typing import Final, Literal

from tasks.metrics.definitions import WORKER_METRICS

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True)
class Metric:
    """One Prometheus metric. Durations are in seconds; label values are bounded by what the library has registered."""

    name: str
    kind: Kind
    description: str
    source: str
    """The source that must be reachable for the metric to be served: `database`, `broker` or `workers`."""
    labels: tuple[str, ...] = ()


def _gauge(source: str, name: str, description: str, *labels: str) -> Metric:
    return Metric(f"bookdrop_{name}", "gauge", description, source, labels)


SOURCE_UP: Final = Metric(
    "bookdrop_source_up",
    "gauge",
    "1 if the exporter could read the source at this scrape, else 0, and the metrics of that source are missing.",
    "",
    ("source",),
)

FROM_DATABASE: Final = (
    _gauge("database", "outbox_messages", "Committed messages that are not published to the broker yet."),
    _gauge("database", "outbox_oldest_seconds", "Age of the oldest of them; 0 if there is none."),
    _gauge("database", "slips", "Print jobs by state: all open ones, and those `done` within the last 30 days.", "state"),
    _gauge("database", "slips_oldest_seconds", "Time since the oldest print job entered its state.", "state"),
    _gauge(
        "database", "slip_unconfirmed_oldest_seconds",
        "Time since the oldest slip of the last 30 days was sent that has not been scanned at packing.",
    ),
    _gauge("database", "printer_on_hold", "1 if an operator has put the printer on hold.", "branch", "printer"),
    _gauge("database", "printer_failures", "Consecutive failures of the printer to accept a slip.", "branch", "printer"),
    _gauge(
        "database", "printer_waiting_slips", "Print jobs that wait for the printer or are in progress.",
        "branch", "printer",
    ),
    _gauge("database", "printer_oldest_wait_seconds", "Age of the oldest of them.", "branch", "printer"),
    _gauge(
        "database", "quarantine_messages", "Messages in quarantine without an operator's decision, by reason.", "reason",
    ),
    _gauge("database", "quarantine_content_messages", "Quarantined messages whose content is not erased."),
    _gauge("database", "quarantine_content_bytes", "Size of their content."),
    _gauge(
        "database", "links_overdue_seconds", "Time since the oldest due link to a patron should have been deleted; 0 if none.",
    ),
    _gauge(
        "database", "retention_age_seconds",
        "Time since housekeeping last left no content of the kind whose retention was over.", "kind",
    ),
    _gauge("database", "stations", "Active stations.", "branch"),
    _gauge("database", "stations_seen", "Active stations that sent an event within the last hour.", "branch"),
    _gauge("database", "journal_held_events", "Events that stations held, unsent, at their last report.", "branch"),
    _gauge("database", "journal_oldest_held_seconds", "Age of the oldest of them, by the station's clock.", "branch"),
    _gauge("database", "webhooks_pending", "Webhooks that are not acknowledged yet."),
    _gauge("database", "webhooks_failed", "Webhooks of the retention period that failed for good, or were skipped."),
    _gauge(
        "database", "webhooks_oldest_pending_seconds",
        "Age of the oldest pending webhook, without those to endpoints that an operator disabled; 0 if there is none.",
    ),
)  # fmt: skip
FROM_BROKER: Final = (
    _gauge("broker", "queue_messages", "Messages that wait in a work queue, or in `dead-letter`.", "queue"),
    _gauge(
        "broker", "unacknowledged_messages", "Redis and Valkey: messages delivered to workers and not acknowledged."
    ),
    _gauge("broker", "unacknowledged_oldest_seconds", "Redis and Valkey: time since the oldest of them was delivered."),
)
FROM_WORKERS: Final = (
    _gauge("workers", "workers", "Workers that sent a heartbeat within the last 30 seconds.", "role"),
    _gauge(
        "workers", "worker_heartbeat_age_seconds",
        "Age of the last heartbeat of a worker that did not log off; discarded after 10 minutes.",
        "role", "worker",
    ),
)  # fmt: skip
METRICS: Final[tuple[Metric, ...]] = (
    *(
        Metric(
            metric.name,
            "histogram" if metric.bounds else "counter",
            metric.description,
            "database",
            () if metric.label is None else (metric.label,),
        )
        for metric in WORKER_METRICS
    ),
    *FROM_DATABASE,
    *FROM_BROKER,
    *FROM_WORKERS,
    SOURCE_UP,
)
