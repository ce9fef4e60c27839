# SPDX-License-Identifier: Apache-2.0
"""Requirements of tests on their machine: a missing one skips the test locally and fails it in CI."""

import os
from typing import NoReturn

import pytest


def skip_or_fail(requirement: str) -> NoReturn:
    """Skip the test locally; fail it in CI, where every requirement must be met."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs {requirement}, which is missing")
    pytest.skip(f"needs {requirement}")


def is_thorough(config: pytest.Config) -> bool:
    """True where the tests that take minutes run: with `--thorough`, and in CI."""
    return bool(config.getoption("--thorough")) or os.environ.get("CI") == "true"
