# SPDX-License-Identifier: Apache-2.0
"""A short fuzz run: `make fuzz` sends a hundred times as many messages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_short_fuzz_run_accounts_for_each_message(tmp_path):
    """Mutated messages through a real worker: the run exits with 0, and each message has an outcome."""
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--messages", "1000", "--json", str(file)],
        cwd=ROOT, capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert figures["messages"] == 1000
    assert figures["accounted"] == figures["messages"] + figures["honest"]
