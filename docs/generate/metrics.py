# SPDX-License-Identifier: Apache-2.0
"""The reference page of metrics, generated from their definitions. `python -m docs.generate.metrics` writes it."""

from pathlib import Path
from typing import Final

from tasks.metrics.definitions import WORKER_METRICS
from workers.metrics.definitions import METRICS

PAGE: Final = Path("docs/reference/metrics.md")

_HEAD: Final = """# Metrics

`bookdrop metrics` serves these metrics for Prometheus; `bookdrop metrics --once` prints them. One exporter serves the
metrics of all workers on all machines. Durations are in seconds. No label contains a patron, an item or a request; the
number of branches, printers and workers bounds the number of series. This page is generated from the definitions
(`python -m docs.generate.metrics`).

Workers add counters and histograms to the database every 5 seconds. A killed worker loses the records of its last
seconds; no record is counted twice. Station times come from the station's clock, so synchronise it with NTP. The label
`sent="again"` marks a scan that its station held while offline, or sent again.

[deploy/prometheus/](../../deploy/prometheus/prometheus.yaml) has an example of a scrape and
[alerts](../../deploy/prometheus/alerts.yaml), each with its entry in the [runbook](../how-to/runbook.md);
[deploy/grafana/](../../deploy/grafana/bookdrop.json) has a dashboard to import.

| metric | kind | labels | source | description |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """The page, as Markdown."""
    rows = (
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels) or 'none'} |"
        f" {metric.source or 'the exporter'} | {metric.description} |"
        for metric in METRICS
    )
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
    return (
        _HEAD + "\n".join(rows) + "\n\n## Values of labels\n\n" + "\n".join(values)
        + "\n\n## Buckets, in seconds\n\n" + "\n".join(bounds) + "\n"
    )  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
