# SPDX-License-Identifier: Apache-2.0
"""Alerts, dashboard and page of metrics: only metrics that exist, only runbook entries that exist, and they work."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import missing
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


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_expressions_use_metrics_and_labels_that_exist(where):
    """What an alert or a panel asks for is something that the exporter tells."""
    asked = set(NAME.findall(EXPRESSIONS[where]))

    assert asked
    assert asked - set(KNOWN) - {"up"} == set()
    for name, matchers in MATCHER.findall(EXPRESSIONS[where]):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert labels <= {*KNOWN[name].labels, "le"}, (where, name)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do(rule):
    """Each alert has words, a severity, and a runbook entry that is there; its words use labels it has."""
    document, _, anchor = rule["annotations"]["runbook"].partition("#")

    assert anchor in anchors(ROOT / document)
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    text = (ROOT / document).read_text(encoding="utf-8")
    assert f"`{rule['alert']}`" in text, "the runbook names the alert"
    used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    given = {label for name in NAME.findall(rule["expr"]) if name in KNOWN for label in KNOWN[name].labels}
    assert used <= given


def test_panels_have_places_and_titles_of_their_own():
    """No two panels of the dashboard lie on one another or share an id."""
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)


@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yaml"), ("check", "config", "prometheus.yaml"), ("test", "rules", "alerts_test.yaml")],
    ids=" ".join,
)
def test_prometheus_own_tool_agrees(arguments):
    """The rules are well formed, the example configuration is, and the alerts come and stay away as their tests say."""
    if shutil.which("promtool") is None:
        missing("promtool (Debian package prometheus)")

    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
