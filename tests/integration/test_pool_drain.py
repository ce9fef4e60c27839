# SPDX-License-Identifier: Apache-2.0
"""What a process has begun counts as begun when the worker lets go of its connection, though nobody has heard it yet."""

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


def test_what_was_handed_over_a_moment_ago_is_not_forgotten(hub):
    """Handed over, and the loop turns no more: it is done, and is told to be, before Celery forgets what has not begun."""
    told = []
    pool = TaskPool(1, app=app, threads=False, initargs=(app, "returns@here"))
    pool.start()
    pool.register_with_event_loop(hub)
    run_loop_until(hub, pool.did_start_ok)
    job = pool.apply_async(
        int, ("7",), accept_callback=lambda *_: told.append("begun"), callback=lambda *_: told.append("done")
    )
    run_loop_until(hub, lambda: job._write_to is not None)
    before = list(told)

    drain_job_acceptance(pool, hub)
    pool.flush()
    pool.stop()

    assert before == []
    assert told == ["begun", "done"]


def test_nothing_is_listened_to_where_nothing_is_open(hub, monkeypatch):
    """Processes that have nothing in hand, a pool without processes, a worker without a loop: nobody waits."""
    monkeypatch.delattr("workers.runtime.pool_drain._select")
    pool = TaskPool(1, app=app, threads=False, initargs=(app, "returns@here"))
    drain_job_acceptance(pool, hub)
    pool.start()
    drain_job_acceptance(pool, hub)
    drain_job_acceptance(pool, None)
    pool.terminate()
