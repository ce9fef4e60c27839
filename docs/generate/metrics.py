# SPDX-License-Identifier: Apache-2.0
"""The reference page of metrics, generated from their definitions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from docs.generate.markdown import table
from tasks.metrics.definitions import WORKER_METRICS
from workers.metrics.definitions import METRICS

PAGE: Final = Path("docs/reference/metrics.md")

_HEAD: Final = """# Metrics

`bookdrop metrics` serves these metrics for Prometheus; `bookdrop metrics --once` prints them. One exporter serves the
metrics of all workers on all machines. Durations are in seconds. No label contains a patron, an item or a request; the
number of branches, printers and workers bounds the number of series. This page is generated from the definitions
(`make docs`).

Workers add counters and histograms to the database every 5 seconds. A killed worker loses the records of its last
seconds; no record is counted twice. Station times come from the station's clock, so synchronise it with NTP. The label
`sent="again"` marks a scan that its station held while offline, or sent again.

[deploy/prometheus/](../../deploy/prometheus/prometheus.yaml) has an example of a scrape and
[alerts](../../deploy/prometheus/alerts.yaml), each with its entry in the [runbook](../how-to/runbook.md);
[deploy/grafana/](../../deploy/grafana/bookdrop.json) has a dashboard to import.
"""


def page() -> str:
    """The page, as Markdown."""
    values = (
        f"- `{metric.name}`: `{metric.label}` is {', '.join(f'`{value}`' for value in metric.values)}"
        for metric in WORKER_METRICS
        if metric.label
    )
    bounds = (
        f"- `{metric.name}`: {', '.join(f'{bound:g}' for bound in metric.bounds)}"
        for metric in WORKER_METRICS
        if metric.bounds
    )
    return "\n".join(
        [_HEAD, *_table(), "", "## Values of labels", "", *values, "", "## Buckets, in seconds", "", *bounds, ""]
    )


def _table() -> Iterator[str]:
    return table(
        ("metric", "kind", "labels", "source", "description"),
        (
            (
                f"`{metric.name}`",
                metric.kind,
                ", ".join(f"`{label}`" for label in metric.labels) or "none",
                metric.source or "the exporter",
                metric.description,
            )
            for metric in METRICS
        ),
    )
