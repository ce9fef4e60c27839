# SPDX-License-Identifier: Apache-2.0
"""Cost of a scan at the station by its steps, and cost of three ways to publish it, in turns.

The same signed scan, with its envelope ready, is published by a push onto Valkey's list, by the station's producer
(kombu), and by Celery's `send_task`. Storing is one commit to the journal, on the disk when it returns.

    python benchmarks/station.py
    python benchmarks/station.py --rabbitmq amqp://guest:guest@127.0.0.1//bench
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from environment import Environment, open_environment, redis_message
from figures import Figures, add, options, progress, run
from pydantic import SecretStr
from uuid6 import uuid7

from schemas.task_message import task_body, task_headers
from schemas.topology import PROCESS_SCAN, RETURNS_QUEUE, reply_queue
from stations.client import StationClient
from stations.journal.events import Journal, NewEvent
from stations.settings import StationSettings
from stations.transport import EventPublisher, OutgoingEvent, connect, queue_declaration
from tests.library import KEY

STATION = "main-desk-1"
Step = Callable[[], float]
"""Performs one step; returns its seconds."""


def settings(broker: str, journal: Path) -> StationSettings:
    """Settings of the only station."""
    return StationSettings(code=STATION, key=SecretStr(KEY), broker_url=SecretStr(broker), journal=journal)


def timed(work: Callable[[], object]) -> float:
    """Run `work`; return its seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def signed_scan(environment: Environment) -> tuple[str, dict[str, Any]]:
    """A signed scan, with its event id."""
    payload = environment.library.scan("31000001", station=STATION, print_slip=False)
    return str(payload["event_id"]), payload


def push(environment: Environment, valkey: redis.Redis) -> float:
    """Publish by a push onto the list, the least that is possible."""
    event_id, payload = signed_scan(environment)
    body, headers = task_body(json.dumps(payload)), task_headers(PROCESS_SCAN, event_id, origin=STATION)
    message = redis_message(event_id, body, headers, STATION)
    return timed(lambda: valkey.lpush(RETURNS_QUEUE, message))


def publish(environment: Environment, publisher: EventPublisher) -> float:
    """Publish as a station does."""
    event_id, payload = signed_scan(environment)
    body = json.dumps(payload)
    return timed(lambda: publisher.publish([OutgoingEvent(event_id, PROCESS_SCAN, body)]))


def send(environment: Environment, app: Celery) -> float:
    """Publish as a program that uses Celery does."""
    event_id, payload = signed_scan(environment)
    reply_to = reply_queue(STATION)
    return timed(
        lambda: app.send_task(PROCESS_SCAN, (payload,), task_id=event_id, queue=RETURNS_QUEUE, reply_to=reply_to)
    )


@contextmanager
def ways_to_publish(environment: Environment) -> Iterator[dict[str, Step]]:
    """Yield the ways to publish one signed scan."""
    urls = {"Valkey": f"redis+socket://{environment.valkey}"} | (
        {"RabbitMQ": environment.rabbitmq} if environment.rabbitmq else {}
    )
    with ExitStack() as stack:
        valkey = stack.enter_context(redis.Redis(unix_socket_path=str(environment.valkey)))
        steps: dict[str, Step] = {"Valkey, list push": partial(push, environment, valkey)}
        for name, url in urls.items():
            stack.callback(_delete_queues, url)
            publisher = stack.enter_context(closing(EventPublisher(url, STATION)))
            app = stack.enter_context(closing(Celery(broker=url, set_as_current=False)))
            app.conf.update(task_ignore_result=True, task_queues=[queue_declaration(RETURNS_QUEUE)])
            app.conf.broker_transport_options = {} if url.startswith("redis") else {"confirm_publish": True}
            steps[f"{name}, station's producer"] = partial(publish, environment, publisher)
            steps[f"{name}, send_task"] = partial(send, environment, app)
        yield steps


def _delete_queues(url: str) -> None:
    with connect(url) as connection:
        for queue in (RETURNS_QUEUE, reply_queue(STATION)):
            queue_declaration(queue).bind(connection.default_channel).delete()


@contextmanager
def other_steps(environment: Environment, folder: Path) -> Iterator[dict[str, Step]]:
    """Yield the steps of a scan before and after it is published."""
    journal = Journal(folder / "parts.journal", STATION)
    event_ids: list[str] = []

    def sign() -> float:
        return timed(lambda: environment.library.scan("31000001", station=STATION))

    def store() -> float:
        payload = json.dumps(environment.library.scan("31000001", station=STATION))
        event_ids.append(str(uuid7()))
        now = datetime.now(UTC)
        event = NewEvent(event_ids[-1], PROCESS_SCAN, "31000001", lambda _: payload)
        return timed(lambda: journal.append(event, now, now + timedelta(hours=1)))

    def store_reply() -> float:
        store()
        return timed(lambda: journal.store_replies({event_ids[-1]: '{"message": "A reply."}'}, datetime.now(UTC)))

    try:
        yield {"sign": sign, "store": store, "store the reply": store_reply}
    finally:
        journal.close()


def measure(chosen: argparse.Namespace) -> Figures:
    """Measure all steps in turns, scan by scan; then whole scans with a client."""
    found: Figures = {}
    with open_environment("sqlite://", chosen.rabbitmq, 1, 0) as environment:
        for turn in range(chosen.rounds):
            folder = environment.folder / str(turn)
            with ways_to_publish(environment) as publishing, other_steps(environment, folder) as others:
                steps = publishing | others
                for number in range(chosen.scans + 10):
                    for name, step in steps.items():
                        microseconds = step() * 1e6
                        if number >= 10:  # noqa: PLR2004 - the first scans connect
                            add(found, name, "once, us", [microseconds])
                broker = f"redis+socket://{environment.valkey}"
                with StationClient(settings(broker, folder / "client.journal")) as client:
                    for _ in range(chosen.scans):
                        add(found, "whole scan()", "once, us", [timed(lambda: client.scan("31000001")) * 1e6])
            progress.print(f"round {turn + 1} of {chosen.rounds}: {chosen.scans} of each")
    return found


def main() -> None:
    """Measure and report."""
    parser = options(__doc__, __file__, uses=("rabbitmq",))
    parser.add_argument("--scans", type=int, default=300, help="scans in each round, for each step")
    run(parser, measure)


if __name__ == "__main__":
    main()
