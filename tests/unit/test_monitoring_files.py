# SPDX-License-Identifier: Apache-2.0
"""Alerts and dashboard: they use existing metrics and labels, and existing runbook entries."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.unit.test_documents import anchors
from workers.metrics.definitions import METRICS

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
NAME = re.compile(r"\b(?:bookdrop_\w+|up)\b")
MATCHER = re.compile(r"\b(bookdrop_\w+)\{([^}]*)\}")
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}
KNOWN = {each.name + suffix: each for each in METRICS for suffix in SUFFIXES[each.kind]}

ALERTS = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]  # fmt: skip
PANELS = json.loads((ROOT / "deploy" / "grafana" / "bookdrop.json").read_text(encoding="utf-8"))["panels"]
EXPRESSIONS = {
    **{rule["alert"]: rule["expr"] for rule in ALERTS},
    **{f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]},
}


@pytest.mark.parametrize("place", EXPRESSIONS)
def test_expression_uses_existing_metrics_and_labels(place):
    """Each metric and label in the expression of an alert or a panel is one that the exporter exports."""
    metrics = set(NAME.findall(EXPRESSIONS[place]))

    assert metrics
    assert metrics - set(KNOWN) - {"up"} == set()
    for name, matchers in MATCHER.findall(EXPRESSIONS[place]):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert labels <= {*KNOWN[name].labels, "le"}, (place, name)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alert_has_a_severity_a_text_and_a_runbook_entry(rule):
    """The runbook has the entry and names the alert; the texts use only labels that the expression has."""
    document, _, anchor = rule["annotations"]["runbook"].partition("#")
    runbook = (ROOT / document).read_text(encoding="utf-8")
    used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    available = {label for name in NAME.findall(rule["expr"]) if name in KNOWN for label in KNOWN[name].labels}

    assert anchor in anchors(ROOT / document)
    assert f"`{rule['alert']}`" in runbook
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert used <= available


def test_panels_do_not_overlap():
    """Each cell of the dashboard's grid belongs to one panel, and ids and titles are unique."""
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)
