# SPDX-License-Identifier: Apache-2.0
"""A task that cannot be done now goes back to its queue, also when the broker cannot be published to."""

from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Reject, Retry
from kombu import Connection

from tasks.requeue import LONGEST_BACKOFF, requeue, requeue_after_backoff


def do(_self, _order):
    """What the task does."""


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


def test_it_is_published_anew_and_counted(broker_url):
    """The queue has it again, with one try more."""
    back = requeue(running(broker_url), ConnectionError("the database is away"))

    assert isinstance(back, Retry)
    with Connection(broker_url) as connection:
        channel: Any = connection.default_channel
        message = channel.basic_get("work", no_ack=True)
        assert message.headers["id"] == "the-task"
        assert message.headers["retries"] == 3


@pytest.mark.parametrize("away", ["redis://127.0.0.1:1/0", "amqp://guest:guest@127.0.0.1:1//"])
def test_with_the_broker_away_as_well_it_is_given_back(away):
    """Celery would have it among the dead letters: it is to be delivered again."""
    back = requeue(running(away), ConnectionError("the database is away"))

    assert isinstance(back, Reject)
    assert vars(back)["requeue"] is True


@pytest.mark.parametrize(("retries", "longest"), [(0, 0.5), (2, 2.0), (5, LONGEST_BACKOFF), (100_000, LONGEST_BACKOFF)])
def test_backoff_doubles_up_to_its_limit(broker_url, retries, longest):
    """The worker waits between half the backoff and all of it; an outage of days has requeued a task very often."""
    waits: list[float] = []

    back = requeue_after_backoff(
        running(broker_url, retries), ConnectionError("unavailable"), log_event="a_requeued", sleep=waits.append
    )

    assert isinstance(back, Retry)
    assert longest / 2 <= waits[0] <= longest
