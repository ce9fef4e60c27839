# SPDX-License-Identifier: Apache-2.0
"""Figures of a benchmark: percentiles, ratios, bounds, and the plot."""

from xml.etree import ElementTree as ET

import pytest

from benchmarks.figures import Bound, Figures, plot, ratios, summarize

FOUND: Figures = {
    "floor": {"scan, ms": [float(n) for n in range(1, 201)], "drain, returns/s": [90.0, 100.0, 500.0]},
    "<other> & more": {"scan, ms": [50.25], "drain, returns/s": [300.0]},
}


def test_samples_become_percentiles_and_other_figures_medians():
    """p99 is computed only from enough samples."""
    columns = summarize(FOUND)

    assert columns["floor"] == {
        "scan, p50 ms": 100.5,
        "scan, p99 ms": pytest.approx(198.99),
        "drain, returns/s": 100.0,
    }
    assert columns["<other> & more"] == {"scan, p50 ms": 50.25, "drain, returns/s": 300.0}


def test_ratios_are_relative_to_the_first_candidate():
    """The first candidate is the reference."""
    assert ratios(summarize(FOUND))["<other> & more"] == {"scan, p50 ms": 0.5, "drain, returns/s": 3.0}


@pytest.mark.parametrize(
    ("bound", "outcome"),
    [
        (Bound("<other> & more", "scan, p50 ms", "at most", 0.5), (0.5, True)),
        (Bound("<other> & more", "drain, returns/s", "at least", 4), (3.0, False)),
        (Bound("<other> & more", "drain, returns/s", "at most", 120, of=None), (300.0, False)),
        (Bound("<other> & more", "scan, p99 ms", "at most", 2), None),
        (Bound("not a candidate", "scan, p50 ms", "at most", 2), None),
    ],
)
def test_bound_is_kept_missed_or_not_measured(bound, outcome):
    """A bound limits a ratio to the first candidate, or a number; a missing figure is neither kept nor missed."""
    assert bound.check(summarize(FOUND)) == outcome


def test_plot_is_svg_with_a_bar_for_each_figure():
    """The SVG is well-formed for any candidate's name; the longest bars of all figures have the same length."""
    drawn = ET.fromstring(plot(summarize(FOUND), "a run"))

    bars = [bar for bar in drawn.iter("{http://www.w3.org/2000/svg}rect") if "x" in bar.attrib]
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert len(widths) == 5
    assert widths.count(max(widths)) == 3
