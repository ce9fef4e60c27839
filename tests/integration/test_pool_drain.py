# SPDX-License-Identifier: Apache-2.0
"""Draining job acceptance: a job that a pool process has begun counts as begun when the connection closes."""

import time

import pytest
from celery.concurrency.prefork import TaskPool
from kombu.asynchronous import Hub, set_event_loop

from tests.polling import TIMEOUT
from workers.app import app
from workers.runtime.pool_drain import drain_job_acceptance


@pytest.fixture
def hub():
    hub = Hub()
    set_event_loop(hub)
    yield hub
    set_event_loop(None)
    hub.close()


def run_loop_until(hub, condition):
    """Run turns of the event loop until `condition()` is true."""
    loop, deadline = hub.create_loop(), time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        next(loop)


def test_job_handed_over_before_the_drain_is_accepted(hub):
    """A job handed to a process while the loop no longer runs is accepted and done before Celery discards unaccepted jobs."""
    callbacks = []
    pool = TaskPool(1, app=app, threads=False, initargs=(app, "returns@here"))
    pool.start()
    pool.register_with_event_loop(hub)
    run_loop_until(hub, pool.did_start_ok)
    job = pool.apply_async(
        int,
        ("7",),
        accept_callback=lambda *_: callbacks.append("accepted"),
        callback=lambda *_: callbacks.append("done"),
    )
    run_loop_until(hub, lambda: job._write_to is not None)
    before = list(callbacks)

    drain_job_acceptance(pool, hub)
    pool.flush()
    pool.stop()

    assert before == []
    assert callbacks == ["accepted", "done"]


def test_drain_does_not_wait_without_open_jobs(hub, monkeypatch):
    """Idle processes, a pool without processes, a worker without an event loop: the drain returns at once."""
    monkeypatch.delattr("workers.runtime.pool_drain._select")
    pool = TaskPool(1, app=app, threads=False, initargs=(app, "returns@here"))
    drain_job_acceptance(pool, hub)
    pool.start()
    drain_job_acceptance(pool, hub)
    drain_job_acceptance(pool, None)
    pool.terminate()
