# SPDX-License-Identifier: Apache-2.0
"""A returns worker on each broker: an orderly shutdown, and an end for a message that kills processes."""

from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Producer
from sqlalchemy import func, select
from uuid6 import uuid7

from schemas.models import OutboxEntry, RequestEvent
from schemas.task_message import task_body, task_headers
from schemas.topology import DEAD_LETTER_QUEUE, RETURNS_QUEUE
from tests.kill_task import KILL
from tests.processes import stop
from workers.runtime.queues import queue_declaration

pytestmark = [
    pytest.mark.long,
    pytest.mark.thorough,
    pytest.mark.databases("sqlite"),
    pytest.mark.brokers("redis", "rabbitmq"),
]

ROOT = Path(__file__).parents[2]


def count(library, model):
    """Number of rows."""
    with library.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(model)).scalar_one()


def messages_in(url, queue):
    """Number of messages that wait in a queue."""
    with Connection(url) as connection:
        declared: Any = queue_declaration(queue).bind(connection.default_channel).queue_declare(passive=False)
    return declared.message_count


def test_term_finishes_running_events_and_requeues_the_rest(deployment, raw_station, library):
    """TERM during a backlog ends the worker with code 0. Each scan is either processed or back in the queue."""
    sent = [raw_station.send(library.scan(barcode)) for barcode in library.loaned_items(120)]

    process = deployment.start_worker("returns", BOOKDROP_BATCHING="false")
    raw_station.wait_until(lambda: len(raw_station.received) >= 5)
    code = stop(process)
    done, requeued = count(library, RequestEvent), messages_in(deployment.broker_url, RETURNS_QUEUE)

    with deployment.worker("returns"):
        raw_station.replies_to(*sent)
    assert code == 0
    assert 5 <= done < 120
    assert done + requeued == 120
    assert count(library, RequestEvent) == 120
    assert len(raw_station.replies()) == 120
    assert count(library, OutboxEntry) <= 120  # the print tasks; every reply is published


def test_message_that_kills_its_process_reaches_the_delivery_limit(deployment, raw_station, library):
    """The broker counts each delivery of such a message, so that its limit applies. Scans beside it get their replies."""
    options = ("-I", "tests.kill_task", "-c", "1", "--without-gossip", "--without-mingle", "-l", "INFO")
    with deployment.celery_worker(*options, PYTHONPATH=str(ROOT)):
        event_id = str(uuid7())
        with Connection(deployment.broker_url) as connection:
            channel: Any = connection.default_channel
            queue_declaration(RETURNS_QUEUE).bind(channel).queue_declare()
            Producer(channel).publish(
                task_body("1"),
                exchange="",
                routing_key=RETURNS_QUEUE,
                headers=task_headers(KILL, event_id, origin="a test"),
                content_type="application/json",
                content_encoding="utf-8",
            )
        raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))
        if deployment.broker_url.startswith("amqp"):
            raw_station.wait_until(lambda: "WorkerLostError(" in deployment.log("returns"))
        else:
            raw_station.wait_until(lambda: messages_in(deployment.broker_url, DEAD_LETTER_QUEUE))
        raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))

    if deployment.broker_url.startswith("amqp"):
        with Connection(deployment.broker_url) as connection:
            channel = connection.default_channel
            message = channel.basic_get(RETURNS_QUEUE)
        assert message.headers["x-delivery-count"] >= 2  # once for the killed process, once for the end of the worker
    else:
        with Connection(deployment.broker_url) as connection:
            channel = connection.default_channel
            letter = channel.basic_get(DEAD_LETTER_QUEUE)
        assert letter.headers["x-quarantine-reason"] == "lost_too_often"
