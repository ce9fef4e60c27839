# SPDX-License-Identifier: Apache-2.0
"""Each benchmark runs to its end and writes its figures. The figures themselves are not judged."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
NO_SCRIPTS = {"environment", "figures", "floor", "loading", "interleaved", "side"}
"""Modules that the scripts import or start, and the comparison with a commit, which has a test of its own."""
SMALLEST = {
    "growth": ["--sizes", "200,400", "--scans", "10"],
    "imports": ["--rows", "50"],
    "replay": ["--held", "20"],
    "scans": ["--stations", "1", "--scans", "40"],
    "search": ["--sizes", "200"],
    "slips": ["--slips", "2"],
    "station": ["--scans", "10"],
    "worker": ["--scans", "50", "--idle-seconds", "1"],
}


def is_checkout():
    if shutil.which("git") is None:
        return False
    command = ["git", "-C", str(FOLDER), "worktree", "list"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_every_script_is_listed():
    """A new benchmark comes with its smallest run."""
    assert {path.stem for path in FOLDER.glob("*.py")} - NO_SCRIPTS == set(SMALLEST)


@pytest.mark.parametrize("name", SMALLEST)
def test_benchmark_writes_its_figures(name, tmp_path):
    """One round of the smallest size: exit code 0 when no limit is missed, 1 when one is, and the figures in the file."""
    file = tmp_path / "figures.json"

    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", "--rounds", "1", "--json", file, *SMALLEST[name]],
        cwd=FOLDER.parent, capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip

    assert "Traceback" not in done.stderr, done.stderr
    figures = json.loads(file.read_text())["figures"]
    assert figures
    assert all(numbers for candidate in figures.values() for numbers in candidate.values())


@pytest.mark.skipif(not is_checkout(), reason="the sources are not a git checkout, or git does not trust it")
def test_comparison_with_a_commit_reports_a_ratio_for_each_figure(tmp_path):
    """Both sides are measured in the same blocks."""
    file = tmp_path / "figures.json"
    command = ["interleaved.py", "HEAD", "--blocks", "2", "--scans", "5", "--backlog", "20", "--json", file]

    done = subprocess.run(
        [sys.executable, FOLDER / command[0], *command[1:]],
        cwd=FOLDER.parent, capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    summary = json.loads(file.read_text())["summary"]
    assert set(summary) == {"latency", "drain", "cpu of latency", "cpu of drain"}
    assert all(row["low"] <= row["ratio"] <= row["high"] for row in summary.values())
