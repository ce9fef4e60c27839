# SPDX-License-Identifier: Apache-2.0
"""Every metric: name, kind, labels and words, once. The page of metrics is made from this."""

from dataclasses import dataclass
from typing import Final, Literal

from tasks.metrics.definitions import METRICS_RECORDED

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True)
class Metric:
    """What is told under one name. Durations are in seconds, labels bounded by what the library set up."""

    name: str
    kind: Kind
    words: str
    source: str
    """What must answer for it to be there: `database`, `broker` or `workers`."""
    labels: tuple[str, ...] = ()


def _gauge(source: str, name: str, words: str, *labels: str) -> Metric:
    return Metric(f"bookdrop_{name}", "gauge", words, source, labels)


SOURCE_UP: Final = Metric(
    "bookdrop_source_up",
    "gauge",
    "1 when a source could be asked at this scrape, else 0 and what comes from it is not told.",
    "",
    ("source",),
)

FROM_DATABASE: Final = (
    _gauge("database", "outbox_messages", "Messages that a commit promised and the broker does not have yet."),
    _gauge("database", "outbox_oldest_seconds", "Age of the oldest of them; 0 when there is none."),
    _gauge("database", "slips", "Slips by state: all that are open, and `done` of the last 30 days.", "state"),
    _gauge("database", "slips_oldest_seconds", "How long the oldest slip has been in its state.", "state"),
    _gauge(
        "database", "slip_unconfirmed_oldest_seconds",
        "Since when the oldest slip of the last 30 days that was sent has not been scanned at packing.",
    ),
    _gauge("database", "printer_on_hold", "1 when a person has put the printer on hold.", "branch", "printer"),
    _gauge("database", "printer_failures", "How often in a row the printer took no slip.", "branch", "printer"),
    _gauge("database", "printer_waiting_slips", "Slips that wait for the printer or are in hand.", "branch", "printer"),
    _gauge(
        "database", "printer_oldest_wait_seconds", "Since when the oldest of them was wanted.", "branch", "printer",
    ),
    _gauge("database", "quarantine_messages", "Messages in quarantine that nobody has decided about, by reason.", "reason"),
    _gauge("database", "links_overdue_seconds", "For how long a link to a reader should have been deleted; 0: none is due."),
    _gauge("database", "stations", "Active stations.", "branch"),
    _gauge("database", "stations_seen", "Active stations that were heard of in the last hour.", "branch"),
    _gauge("database", "journal_held_events", "Events that desks held back at their last word: taken, not sent.", "branch"),
    _gauge("database", "journal_oldest_held_seconds", "Age of the oldest of them, by its desk's clock.", "branch"),
)  # fmt: skip
FROM_BROKER: Final = (
    _gauge("broker", "queue_messages", "Messages that wait in a work queue, or in `dead-letter`.", "queue"),
    _gauge("broker", "unacknowledged_messages", "Redis and Valkey: messages that workers hold and have not done yet."),
    _gauge("broker", "unacknowledged_oldest_seconds", "Redis and Valkey: for how long the oldest of them is held."),
)
FROM_WORKERS: Final = (
    _gauge("workers", "workers", "Workers that were heard of in the last 30 seconds.", "role"),
    _gauge(
        "workers", "worker_heartbeat_age_seconds",
        "Since when nothing was heard of a worker that did not say goodbye; it is forgotten after 10 minutes.",
        "role", "worker",
    ),
)  # fmt: skip
METRICS: Final[tuple[Metric, ...]] = (
    *(
        Metric(
            each.name,
            "histogram" if each.bounds else "counter",
            each.words,
            "database",
            () if each.label is None else (each.label,),
        )
        for each in METRICS_RECORDED
    ),
    *FROM_DATABASE,
    *FROM_BROKER,
    *FROM_WORKERS,
    SOURCE_UP,
)

PAGE: Final = "docs/reference/metrics.md"
"""Where the page is kept."""

_HEAD = """# Metrics

`bookdrop metrics` serves these for Prometheus, and `bookdrop metrics --once` prints them. One exporter tells of all
workers, wherever they run. Durations are in seconds. No label names a reader, an item or a request; branches, printers
and workers are as many as the library set up. This page is made from the program (`python -m workers.metrics.definitions`).

Counters and histograms are added up in the database by the workers, every 5 seconds: a worker that is killed takes its
last seconds with it, and nothing is counted twice. Times of a desk are by the desk's clock, so give it NTP. "Sent again"
is a scan that its desk held while it could not send, or asked for again.

[deploy/prometheus/](../../deploy/prometheus/prometheus.yaml) has an example of a scrape and
[alerts](../../deploy/prometheus/alerts.yaml), each with its entry in the [runbook](../how-to/runbook.md);
[deploy/grafana/](../../deploy/grafana/bookdrop.json) has a dashboard to import.

| metric | kind | labels | comes from | what it is |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """The page of metrics."""
    rows = (
        f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels) or 'none'} |"
        f" {each.source or 'the exporter'} | {each.words} |"
        for each in METRICS
    )
    values = (
        f"- `{each.name}`: `{each.label}` is {', '.join(f'`{value}`' for value in each.values)}"
        for each in METRICS_RECORDED
        if each.label
    )
    bounds = (
        f"- `{each.name}`: {', '.join(f'{bound:g}' for bound in each.bounds)}"
        for each in METRICS_RECORDED
        if each.bounds
    )
    return (
        _HEAD + "\n".join(rows) + "\n\n## Values of labels\n\n" + "\n".join(values)
        + "\n\n## Buckets, in seconds\n\n" + "\n".join(bounds) + "\n"
    )  # fmt: skip


if __name__ == "__main__":
    from pathlib import Path

    Path(PAGE).write_text(page(), encoding="utf-8")
