# SPDX-License-Identifier: Apache-2.0
"""The floor: a loop that pops a list and runs the same handler, one event at a time, without Celery or acknowledgement."""

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
    """Process events until TERM."""
    client = redis.Redis(unix_socket_path=socket)
    engine = open_engine(os.environ["BOOKDROP_DATABASE_URL"])
    sessions, published = sessionmaker(engine), PublishedRows()
    policy = LibraryPolicy(new_id=uuid7, undo_window=timedelta(minutes=10))
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    while not stopped.is_set():
        popped = client.brpop(RETURNS_QUEUE, timeout=0.25)
        if popped is None:
            continue
        envelope = json.loads(popped[1])
        [event], _, _ = json.loads(base64.b64decode(envelope["body"]))
        received = Received(event, envelope["properties"]["reply_to"])

        def work(received: Received = received) -> UnitOfWork:
            with UnitOfWork(sessions, datetime.now(UTC), published) as uow:
                process_in(uow, [received], RETURN_HANDLER, policy)
            return uow

        uow = retry_on_conflict(work)
        for message in uow.pending_messages:
            # The smallest reply: a list entry that names its event.
            reply = {"body": message.body, "properties": {"correlation_id": str(message.event_id)}}
            client.lpush(message.queue, json.dumps(reply))
        published.add(message.outbox_id for message in uow.pending_messages if message.outbox_id is not None)
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1])
