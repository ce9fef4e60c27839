# SPDX-License-Identifier: Apache-2.0
"""One poll loop for all tests, with one generous deadline.

The deadline only ends a test that fails. No test judges how long something took, unless time is what it tests.
"""

import time
from collections.abc import Callable
from typing import Any

TIMEOUT = 300.0
"""Seconds. A machine that is busy with other work needs many of them; pytest ends a test after 600 s."""


def wait_until(
    condition: Callable[[], Any],
    what: str | Callable[[], object] = "the condition holds",
    *,
    timeout: float = TIMEOUT,
    interval: float = 0.05,
    ignore: tuple[type[Exception], ...] = (),
) -> Any:
    """Poll `condition` until its result is true; return that result.

    `what` names the condition in the error, or returns details for it. Exceptions in `ignore` count as false.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            if result := condition():
                return result
        except ignore:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what() if callable(what) else what}")
        time.sleep(interval)
