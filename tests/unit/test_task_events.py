# SPDX-License-Identifier: Apache-2.0
"""Events of print tasks: they neither delay nor fail the task that sends them."""

import pytest
from celery import Celery
from kombu import Connection

from tests.network import free_port
from workers.task_events import TaskEventPublisher


@pytest.fixture
def connections():
    """The connections that the publisher opened."""
    return []


@pytest.fixture
def publish_event(connections):
    """A publisher whose broker is unavailable."""
    url = f"redis://127.0.0.1:{free_port()}"

    def connect():
        connections.append(Connection(url, transport_options={"max_retries": 0, "socket_connect_timeout": 3}))
        return connections[-1]

    return TaskEventPublisher(connect)


def test_unavailable_broker_is_tried_once(publish_event, connections):
    """The task continues, and for a while no further connection is opened."""

    @Celery(set_as_current=False).task
    def printing():
        for _ in range(3):
            publish_event("slip-sending", slip="01a20aee-905b-70e3-bbdd-6f98a0bee5d1")
        return "printed"

    assert printing.apply().get() == "printed"
    assert len(connections) == 1


def test_no_event_is_sent_outside_a_task(publish_event, connections):
    """Commands use the same functions, and have no task that an event could name."""
    publish_event("slip-sending", slip="01a20aee-905b-70e3-bbdd-6f98a0bee5d1")

    assert connections == []
