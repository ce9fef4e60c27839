# SPDX-License-Identifier: Apache-2.0
"""What a benchmark makes of its numbers: percentiles, ratios, bounds, and a plot."""

from xml.etree import ElementTree as ET

import pytest

from benchmarks.figures import Bound, Figures, plot, ratios, told

FOUND: Figures = {
    "floor": {"scan, ms": [float(n) for n in range(1, 201)], "drain, returns/s": [90.0, 100.0, 500.0]},
    "<other> & more": {"scan, ms": [50.25], "drain, returns/s": [300.0]},
}


def test_samples_are_told_as_percentiles_and_the_rest_as_medians():
    """p99 only of samples that are enough for one."""
    columns = told(FOUND)

    assert columns["floor"] == {
        "scan, p50 ms": 100.5,
        "scan, p99 ms": pytest.approx(198.99),
        "drain, returns/s": 100.0,
    }
    assert columns["<other> & more"] == {"scan, p50 ms": 50.25, "drain, returns/s": 300.0}


def test_all_are_compared_with_the_first():
    """The first candidate is the yardstick."""
    assert ratios(told(FOUND))["<other> & more"] == {"scan, p50 ms": 0.5, "drain, returns/s": 3.0}


@pytest.mark.parametrize(
    ("bound", "outcome"),
    [
        (Bound("<other> & more", "scan, p50 ms", "at most", 0.5), (0.5, True)),
        (Bound("<other> & more", "drain, returns/s", "at least", 4), (3.0, False)),
        (Bound("<other> & more", "drain, returns/s", "at most", 120, of=None), (300.0, False)),
        (Bound("<other> & more", "scan, p99 ms", "at most", 2), None),
        (Bound("nobody", "scan, p50 ms", "at most", 2), None),
    ],
)
def test_a_bound_is_kept_or_missed(bound, outcome):
    """As a ratio to the first candidate, or as a number; what was not measured is neither."""
    assert bound.check(told(FOUND)) == outcome


def test_the_plot_is_an_svg_with_a_bar_for_each_number():
    """Well-formed whatever a candidate is called; the longest bar of each figure is as long as the next figure's."""
    drawn = ET.fromstring(plot(told(FOUND), "a run"))

    bars = [bar for bar in drawn.iter("{http://www.w3.org/2000/svg}rect") if "x" in bar.attrib]
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert len(widths) == 5
    assert widths.count(max(widths)) == 3
