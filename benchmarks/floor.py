# SPDX-License-Identifier: Apache-2.0
"""The floor: a bare list-pop loop that runs the same handler, one event at a time. No framework, no acknowledgement."""

import base64
import json
import os
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta

import redis
from sqlalchemy.orm import sessionmaker
from uuid6 import uuid7

from schemas.database import open_engine
from schemas.topology import RETURNS_QUEUE
from tasks.events.policy import LibraryPolicy
from tasks.events.processing import process_in
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tasks.unit_of_work import PublishedRows, UnitOfWork, retry_on_conflict


def main(socket: str) -> None:
    """Until TERM."""
    client = redis.Redis(unix_socket_path=socket)
    engine = open_engine(os.environ["BOOKDROP_DATABASE_URL"])
    sessions, settled = sessionmaker(engine), PublishedRows()
    house = LibraryPolicy(new_id=uuid7, undo_window=timedelta(minutes=10))
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    while not ending.is_set():
        taken = client.brpop(RETURNS_QUEUE, timeout=0.25)
        if taken is None:
            continue
        message = json.loads(taken[1])
        [event], _, _ = json.loads(base64.b64decode(message["body"]))
        received = Received(event, message["properties"]["reply_to"])

        def work(received: Received = received) -> UnitOfWork:
            with UnitOfWork(sessions, datetime.now(UTC), settled) as uow:
                process_in(uow, [received], RETURN_HANDLER, house)
            return uow

        uow = retry_on_conflict(work)
        for promise in uow.pending_messages:
            # As little as an answer can be: a list entry that names its event.
            answer = {"body": promise.body, "properties": {"correlation_id": str(promise.event_id)}}
            client.lpush(promise.queue, json.dumps(answer))
        settled.add(promise.outbox_id for promise in uow.pending_messages if promise.outbox_id is not None)
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1])
