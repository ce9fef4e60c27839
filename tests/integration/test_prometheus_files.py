# SPDX-License-Identifier: Apache-2.0
"""Files of deploy/prometheus under promtool, Prometheus' own checker."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.requirements import skip_or_fail

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"


@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yaml"), ("check", "config", "prometheus.yaml"), ("test", "rules", "alerts_test.yaml")],
    ids=" ".join,
)
def test_promtool_accepts_the_files(arguments):
    """The rules and the example configuration are valid, and alerts fire and resolve as alerts_test.yaml expects."""
    if shutil.which("promtool") is None:
        skip_or_fail("promtool (Debian package prometheus)")

    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
