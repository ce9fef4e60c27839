# SPDX-License-Identifier: Apache-2.0
"""Cancelled timers are removed from the worker's event loop; the others fire at their time."""

from types import SimpleNamespace
from typing import Any

import pytest
from kombu.asynchronous import timer as kombu_timer
from kombu.asynchronous.hub import Hub

from workers.app import app
from workers.runtime.timer_cleanup import CLEANUP_SECONDS, TimerCleanup


class ManualTimer(kombu_timer.Timer):
    """kombu's timer with a clock that the test sets, in seconds."""

    now = 0.0

    def read_clock(self) -> float:
        return self.now

    def enter_after(self, secs: float, entry: Any, priority: int = 0) -> Any:  # type: ignore[override]
        return super().enter_after(secs, entry, priority, time=self.read_clock)

    def __iter__(self) -> Any:  # type: ignore[override]
        return super().__iter__(nowfun=self.read_clock)  # type: ignore[call-arg]


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> ManualTimer:
    """A timer at second 0."""
    made = ManualTimer()
    monkeypatch.setattr(kombu_timer, "monotonic", made.read_clock)
    return made


def test_cancelled_timers_are_removed_and_the_others_fire_in_order(timer: ManualTimer) -> None:
    """Of a thousand cancelled time limits none is left after the step has run once."""
    hub, fired = Hub(timer), list[float]()
    worker = SimpleNamespace(timer=hub.timer, steps=[])
    step: Any = next(each for each in app.steps["worker"] if each is TimerCleanup)(worker)
    wanted = [hub.call_later(seconds, fired.append, seconds) for seconds in (6.3, 6.1, 6.2)]
    for limit in [hub.call_later(60 + number % 7, print) for number in range(1000)]:
        limit.cancel()

    step.start(worker)
    timer.now = CLEANUP_SECONDS
    hub.fire_timers()
    left = len(hub.timer)
    step.close(worker)
    timer.now = 2 * CLEANUP_SECONDS
    hub.fire_timers()

    assert left == len([*wanted, step])
    assert len(hub.timer) == 0
    assert fired == [6.1, 6.2, 6.3]
