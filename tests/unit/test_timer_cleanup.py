# SPDX-License-Identifier: Apache-2.0
"""What was called off is forgotten by the loop's timer; all else comes when it should."""

import time
from types import SimpleNamespace

from kombu.asynchronous.hub import Hub

from workers.app import app
from workers.runtime import timer_cleanup


def test_what_was_called_off_is_forgotten(monkeypatch):
    """A thousand time limits, called off: when the worker's step has had its turn none is left; the rest fire in order."""
    monkeypatch.setattr(timer_cleanup, "FORGET_SECONDS", 0.02)
    hub, fired = Hub(), list[float]()
    worker = SimpleNamespace(timer=hub.timer, steps=[])
    step = next(each for each in app.steps["worker"] if each is timer_cleanup.TimerCleanup)(worker)
    wanted = [hub.call_later(seconds, fired.append, seconds) for seconds in (0.3, 0.1, 0.2)]
    for limit in [hub.call_later(60 + number % 7, print) for number in range(1000)]:
        limit.cancel()

    step.start(worker)
    time.sleep(0.05)
    hub.fire_timers()
    left = len(hub.timer)
    step.close(worker)
    time.sleep(0.3)
    hub.fire_timers()

    assert left == len([*wanted, step])
    assert len(hub.timer) == 0
    assert fired == [0.1, 0.2, 0.3]
