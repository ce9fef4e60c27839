# SPDX-License-Identifier: Apache-2.0
"""Requeueing a task that cannot run now, also when the broker cannot be published to."""

from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Reject, Retry
from kombu import Connection

from tasks.requeue import LONGEST_BACKOFF, requeue, requeue_after_backoff


def do(_self, _order):
    """The task's function."""


def running(broker_url, retries=2):
    """A running task of an app on that broker, requeued `retries` times before."""
    app = Celery("a test", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_publish_retry=False, broker_transport_options={"max_retries": 0, "socket_connect_timeout": 1},
        broker_connection_timeout=1,
    )  # fmt: skip
    task = app.task(bind=True, name="a.task", max_retries=None)(do)
    task.push_request(
        id="the-task", args=["an order"], kwargs={}, retries=retries, called_directly=False, is_eager=False,
        delivery_info={"exchange": "", "routing_key": "work"},
    )  # fmt: skip
    return task


def test_requeue_publishes_the_task_with_one_more_retry(broker_url):
    """The queue has the task again, with its retries counted."""
    result = requeue(running(broker_url), ConnectionError("the database is unavailable"))

    assert isinstance(result, Retry)
    with Connection(broker_url) as connection:
        channel: Any = connection.default_channel
        message = channel.basic_get("work", no_ack=True)
        assert message.headers["id"] == "the-task"
        assert message.headers["retries"] == 3


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest:guest@127.0.0.1:1//"])
def test_requeue_without_a_broker_rejects_with_requeue(url):
    """Celery would dead-letter it; it must be redelivered."""
    result = requeue(running(url), ConnectionError("the database is unavailable"))

    assert isinstance(result, Reject)
    assert vars(result)["requeue"] is True


@pytest.mark.parametrize(("retries", "longest"), [(0, 0.5), (2, 2.0), (5, LONGEST_BACKOFF), (100_000, LONGEST_BACKOFF)])
def test_backoff_doubles_up_to_its_limit(broker_url, retries, longest):
    """The worker waits between half the backoff and all of it; an outage of days has requeued a task very often."""
    waits: list[float] = []

    result = requeue_after_backoff(
        running(broker_url, retries), ConnectionError("unavailable"), log_event="a_requeued", sleep=waits.append
    )

    assert isinstance(result, Retry)
    assert longest / 2 <= waits[0] <= longest
