# SPDX-License-Identifier: Apache-2.0
"""A consumer in place of the returns worker, whose replies a test scripts."""

import json
import threading
from collections.abc import Callable
from typing import Any, Self

from kombu import Connection, Consumer, Message, Producer

from schemas.topology import RETURNS_QUEUE
from stations.transport import queue_declaration
from tests.raw_station import encoded


def reply_to(event: dict[str, Any]) -> dict[str, Any]:
    """The reply of a worker that knows every barcode and refuses those that begin with an X."""
    return {
        "type": "bookdrop.return-reply.v1",
        "event_id": event["event_id"],
        "outcome": "refused" if event.get("barcode", "").startswith("X") else "returned",
        "reason": "loaned",
        "message": "The item's destination is Riverside University Library",
        "barcode": event.get("barcode"),
        "request": event.get("request"),
        "destination": {"name": "Riverside University Library", "code": "XX-RUL", "delivery_code": "RUL"},
    }


class ScriptedWorker:
    """Passes each event to `script` on a separate thread, and records it. Use as a context manager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.script: Callable[[ScriptedWorker, dict[str, Any]], None] = lambda worker, event: worker.send(
            reply_to(event)
        )
        self.bodies: list[bytes] = []
        self.events: list[dict[str, Any]] = []
        self.messages: list[Message] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def send(self, message: dict[str, Any], station: str = "main-desk-1") -> None:
        """Publish a reply or a notice; only from `script`."""
        self._producer.publish(
            json.dumps(message),
            exchange="",
            routing_key=f"reply.{station}",
            content_type="application/json",
            content_encoding="utf-8",
        )

    def _run(self) -> None:
        with Connection(self.url) as connection:
            self._producer = Producer(connection.channel())
            consumer = Consumer(connection.channel(), [queue_declaration(RETURNS_QUEUE)], on_message=self._on_message)
            consumer.consume()
            while not self._ended.is_set():
                try:
                    connection.drain_events(timeout=0.05)
                except TimeoutError:
                    continue

    def _on_message(self, message: Message) -> None:
        body = encoded(message.body)
        event = json.loads(body)[0][0]
        self.bodies.append(body)
        self.messages.append(message)
        self.events.append(event)
        self.script(self, event)
        message.ack()
