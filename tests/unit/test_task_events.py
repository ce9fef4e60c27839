# SPDX-License-Identifier: Apache-2.0
"""Events of our own never slow the work that they tell of, nor make it fail."""

import pytest
from celery import Celery
from kombu import Connection

from tests.printers import free_port
from workers.task_events import TaskEventPublisher


@pytest.fixture
def connections():
    """The connections that were asked for."""
    return []


@pytest.fixture
def announce(connections):
    """An announcer whose broker is away."""
    url = f"redis://127.0.0.1:{free_port()}"

    def connect():
        connections.append(Connection(url, transport_options={"max_retries": 0, "socket_connect_timeout": 3}))
        return connections[-1]

    return TaskEventPublisher(connect)


def test_a_broker_that_is_away_is_asked_once(announce, connections):
    """The task goes on, and for a while nobody tries again."""

    @Celery(set_as_current=False).task
    def printing():
        for _ in range(3):
            announce("slip-sending", slip="01a20aee-905b-70e3-bbdd-6f98a0bee5d1")
        return "printed"

    assert printing.apply().get() == "printed"
    assert len(connections) == 1


def test_outside_a_task_nothing_is_said(announce, connections):
    """Commands print and decide as well, and have no task to tell of."""
    announce("slip-sending", slip="01a20aee-905b-70e3-bbdd-6f98a0bee5d1")

    assert connections == []
