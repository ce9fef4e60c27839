# SPDX-License-Identifier: Apache-2.0
"""What a scan costs at the desk, by its parts; and what three ways to publish it cost, in turns.

Published is the same signed scan, its envelope ready: by a push onto Valkey's list, by the station's own producer
(kombu), and by Celery's `send_task`. Keeping is one commit to the journal, on the disk when it returns.

    python benchmarks/desk.py
    python benchmarks/desk.py --rabbitmq amqp://guest:guest@127.0.0.1//bench
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
from figures import Figures, add, options, progress, run
from place import Place, place, redis_message
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
Stroke = Callable[[], float]
"""Does something once; gives its seconds."""


def settings(broker: str, journal: Path) -> StationSettings:
    """Settings of the one desk."""
    return StationSettings(code=STATION, key=SecretStr(KEY), broker_url=SecretStr(broker), journal=journal)


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ready(here: Place) -> tuple[str, dict[str, Any]]:
    """A signed scan and its id."""
    payload = here.library.scan("31000001", station=STATION, print_slip=False)
    return str(payload["event_id"]), payload


def push(here: Place, valkey: redis.Redis) -> float:
    """Publish by a push onto the list: as little as can be."""
    event_id, payload = ready(here)
    body, headers = task_body(json.dumps(payload)), task_headers(PROCESS_SCAN, event_id, origin=STATION)
    message = redis_message(event_id, body, headers, STATION)
    return timed(lambda: valkey.lpush(RETURNS_QUEUE, message))


def say(here: Place, mouth: EventPublisher) -> float:
    """Publish as a station does."""
    event_id, payload = ready(here)
    body = json.dumps(payload)
    return timed(lambda: mouth.publish([OutgoingEvent(event_id, PROCESS_SCAN, body)]))


def send(here: Place, app: Celery) -> float:
    """Publish as a program with Celery does."""
    event_id, payload = ready(here)
    reply_to = reply_queue(STATION)
    return timed(
        lambda: app.send_task(PROCESS_SCAN, (payload,), task_id=event_id, queue=RETURNS_QUEUE, reply_to=reply_to)
    )


@contextmanager
def ways_to_publish(here: Place) -> Iterator[dict[str, Stroke]]:
    """Each publishes one ready scan."""
    urls = {"Valkey": f"redis+socket://{here.valkey}"} | ({"RabbitMQ": here.rabbitmq} if here.rabbitmq else {})
    with ExitStack() as stack:
        valkey = stack.enter_context(redis.Redis(unix_socket_path=str(here.valkey)))
        strokes: dict[str, Stroke] = {"Valkey, list push": partial(push, here, valkey)}
        for name, url in urls.items():
            stack.callback(_clean, url)
            mouth = stack.enter_context(closing(EventPublisher(url, STATION)))
            app = stack.enter_context(closing(Celery(broker=url, set_as_current=False)))
            app.conf.update(task_ignore_result=True, task_queues=[queue_declaration(RETURNS_QUEUE)])
            app.conf.broker_transport_options = {} if url.startswith("redis") else {"confirm_publish": True}
            strokes[f"{name}, station's producer"] = partial(say, here, mouth)
            strokes[f"{name}, send_task"] = partial(send, here, app)
        yield strokes


def _clean(url: str) -> None:
    with connect(url, STATION) as connection:
        for queue in (RETURNS_QUEUE, reply_queue(STATION)):
            queue_declaration(queue).bind(connection.default_channel).delete()


@contextmanager
def keeping(here: Place, folder: Path) -> Iterator[dict[str, Stroke]]:
    """Each part of what a desk does before a scan is on its way."""
    journal = Journal(folder / "parts.journal", STATION)
    taken: list[str] = []

    def sign() -> float:
        return timed(lambda: here.library.scan("31000001", station=STATION))

    def keep() -> float:
        payload = json.dumps(here.library.scan("31000001", station=STATION))
        taken.append(str(uuid7()))
        now = datetime.now(UTC)
        event = NewEvent(taken[-1], PROCESS_SCAN, "31000001", lambda _: payload)
        return timed(lambda: journal.append(event, now, now + timedelta(hours=1)))

    def answer() -> float:
        keep()
        return timed(lambda: journal.store_replies({taken[-1]: '{"message": "A reply."}'}, datetime.now(UTC)))

    try:
        yield {"sign": sign, "keep": keep, "keep the answer": answer}
    finally:
        journal.close()


def measure(chosen: argparse.Namespace) -> Figures:
    """All parts in turns, scan by scan; then whole scans with a client."""
    found: Figures = {}
    with place("sqlite://", chosen.rabbitmq, 1, 0) as here:
        for turn in range(chosen.rounds):
            folder = here.folder / str(turn)
            with ways_to_publish(here) as publishing, keeping(here, folder) as parts:
                strokes = publishing | parts
                for number in range(chosen.scans + 10):
                    for name, stroke in strokes.items():
                        microseconds = stroke() * 1e6
                        if number >= 10:  # noqa: PLR2004 - the first ones connect
                            add(found, name, "once, us", [microseconds])
                broker = f"redis+socket://{here.valkey}"
                with StationClient(settings(broker, folder / "client.journal")) as client:
                    for _ in range(chosen.scans):
                        add(found, "whole scan()", "once, us", [timed(lambda: client.scan("31000001")) * 1e6])
            progress.print(f"round {turn + 1} of {chosen.rounds}: {chosen.scans} of each")
    return found


def main() -> None:
    """Measure and tell."""
    parser = options(__doc__, __file__, uses=("rabbitmq",))
    parser.add_argument("--scans", type=int, default=300, help="in each round, of each part")
    run(parser, measure)


if __name__ == "__main__":
    main()
