# SPDX-License-Identifier: Apache-2.0
"""What a worker owes each broker: it ends in order, and a message that kills processes has an end."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Producer
from sqlalchemy import func, select
from uuid6 import uuid7

from schemas.database import open_engine
from schemas.models import OutboxEntry, RequestEvent
from schemas.task_message import task_body, task_headers
from schemas.topology import RETURNS_QUEUE
from tests.killing import KILL
from tests.library import Library
from tests.wire import Wire, start_worker, stop, worker
from workers.runtime.queues import queue_declaration

pytestmark = [pytest.mark.long, pytest.mark.thorough]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def library(sqlite_url, tmp_path):
    engine = open_engine(sqlite_url)
    yield Library(engine, tmp_path / "spool").open()
    engine.dispose()


@pytest.fixture
def parts(any_broker_url, sqlite_url, tmp_path):
    return {"broker_url": any_broker_url, "database_url": sqlite_url, "folder": tmp_path}


@pytest.fixture
def wire(any_broker_url):
    wire = Wire(any_broker_url)
    yield wire
    wire.close()


def count(library, model):
    with library.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(model)).scalar_one()


def left(url, queue):
    """How many messages wait in a queue."""
    with Connection(url) as connection:
        declared: Any = queue_declaration(queue).bind(connection.default_channel).queue_declare(passive=False)
    return declared.message_count


def test_term_finishes_what_is_in_hand_and_gives_the_rest_back(parts, wire, library):
    """In the middle of a backlog: TERM ends with code 0, each scan is either done or back in the queue; none is lost."""
    sent = [wire.send(library.scan(barcode)) for barcode in library.many(120)]

    process = start_worker("returns", BOOKDROP_BATCHING="false", **parts)
    wire.wait(lambda: len(wire.heard) >= 5)
    code = stop(process)
    done, given_back = count(library, RequestEvent), left(parts["broker_url"], RETURNS_QUEUE)

    with worker("returns", **parts):
        wire.answers(*sent)
    assert code == 0
    assert 5 <= done < 120
    assert done + given_back == 120
    assert count(library, RequestEvent) == 120
    assert len(wire.replies()) == 120
    assert count(library, OutboxEntry) <= 120  # orders to print; the replies are out


def test_a_message_that_kills_its_process_is_counted(parts, wire, library, request):
    """The broker counts each death, so that its limit can end them. Scans beside it are answered."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")}
    with (parts["folder"] / "returns.log").open("ab") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-Q", RETURNS_QUEUE),
                *("-I", "tests.killing", "-c", "1", "--without-gossip", "--without-mingle", "-l", "INFO"),
            ],
            env={
                **environment,
                "PYTHONPATH": str(ROOT),
                "BOOKDROP_BROKER_URL": parts["broker_url"],
                "BOOKDROP_DATABASE_URL": parts["database_url"],
                "BOOKDROP_ROLE": "returns",
            },
            stdout=log,
            stderr=log,
        )
    try:
        event_id = str(uuid7())
        with Connection(parts["broker_url"]) as connection:
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
        wire.answers(wire.send(library.scan(library.request()[1][0])))
        if parts["broker_url"].startswith("amqp"):
            wire.wait(lambda: deaths(parts["folder"]) >= 1, 60)
        else:
            wire.wait(lambda: b"2" in request.getfixturevalue("valkey").hvals("unacked_deliveries"), 60)
        wire.answers(wire.send(library.scan(library.request()[1][0])))
    finally:
        stop(process)

    if parts["broker_url"].startswith("amqp"):
        with Connection(parts["broker_url"]) as connection:
            channel = connection.default_channel
            taken = channel.basic_get(RETURNS_QUEUE)
        assert taken.headers["x-delivery-count"] >= 2  # the death, and the end of the worker


def deaths(folder):
    return (folder / "returns.log").read_text().count("WorkerLostError(")
