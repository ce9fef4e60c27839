# SPDX-License-Identifier: Apache-2.0
"""The wire as a station in another language sees it: plain kombu, no code of the station's."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kombu import Connection, Consumer, Message, Producer, Queue

from schemas.task_message import task_body, task_headers
from schemas.topology import PROCESS_RETURN, PROCESS_SCAN, RETURNS_QUEUE, queue_arguments, reply_queue


class Wire:
    """One station's two queues."""

    def __init__(self, broker_url: str, station: str = "main-desk-1") -> None:
        self._connection = Connection(broker_url)
        channel = self._connection.channel()
        arguments = queue_arguments(RETURNS_QUEUE)
        Queue(RETURNS_QUEUE, exchange="", routing_key=RETURNS_QUEUE, queue_arguments=arguments)(channel).queue_declare()
        self._producer = Producer(channel)
        self.reply_to = reply_queue(station)
        self.heard: list[dict[str, Any]] = []
        """All messages that came, in order."""
        self.raw: list[bytes] = []
        self.sent: dict[str, dict[str, Any]] = {}
        """What was sent, by event id."""
        queue = Queue(
            self.reply_to, exchange="", routing_key=self.reply_to, queue_arguments=queue_arguments(self.reply_to)
        )
        self._consumer = Consumer(self._connection.channel(), [queue], on_message=self._hear)
        self._consumer.consume()

    def send(self, payload: dict[str, Any], *, task: str | None = None) -> str:
        """Publish an event; give its id."""
        event_id = str(payload["event_id"])
        self.sent[event_id] = payload
        task = task or (PROCESS_SCAN if "barcode" in payload else PROCESS_RETURN)
        self._producer.publish(
            task_body(json.dumps(payload)),
            exchange="",
            routing_key=RETURNS_QUEUE,
            headers=task_headers(task, event_id, origin="a test"),
            content_type="application/json",
            content_encoding="utf-8",
            reply_to=self.reply_to,
            correlation_id=event_id,
        )
        return event_id

    def answers(self, *event_ids: str, patience: float = 30.0) -> list[dict[str, Any]]:
        """Wait for the reply to each of `event_ids`; give them in that order."""
        self.wait(lambda: set(event_ids) <= {r["event_id"] for r in self.replies()}, patience)
        found = {reply["event_id"]: reply for reply in reversed(self.replies())}
        return [found[event_id] for event_id in event_ids]

    def replies(self) -> list[dict[str, Any]]:
        """The replies that came."""
        return [m for m in self.heard if m["type"].startswith("bookdrop.return-reply")]

    def notices(self) -> list[dict[str, Any]]:
        """The slip notices that came."""
        return [m for m in self.heard if m["type"].startswith("bookdrop.slip-notice")]

    def wait(self, condition: Any, patience: float = 30.0) -> None:
        """Listen until `condition()` holds."""
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, f"not heard in {patience} s; heard: {self.heard[-3:]}"
            try:
                self._connection.drain_events(timeout=0.2)
            except TimeoutError:
                continue

    def close(self) -> None:
        """Let go of the broker."""
        self._connection.release()

    def _hear(self, message: Message) -> None:
        received: Any = message.body
        body = received if isinstance(received, bytes) else received.encode()
        self.raw.append(body)
        self.heard.append(json.loads(body))
        message.ack()


@contextmanager
def worker(
    role: str, *options: str, broker_url: str, database_url: str, folder: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A real worker process of `role`, ended by TERM; its log goes to `folder`."""
    process = start_worker(
        role, *options, broker_url=broker_url, database_url=database_url, folder=folder, **environment
    )
    try:
        yield process
    finally:
        stop(process)


def start_worker(
    role: str, *options: str, broker_url: str, database_url: str, folder: Path, **environment: str
) -> subprocess.Popen[bytes]:
    """Start a worker process in a session of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")}
    with (folder / f"{role}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "workers.cli", "worker", role, *options],
            env={
                **clean,
                "BOOKDROP_BROKER_URL": broker_url,
                "BOOKDROP_DATABASE_URL": database_url,
                "BOOKDROP_HEARTBEAT_FILE": str(folder / f"{role}.heartbeat"),
                "BOOKDROP_SWEEP_INTERVAL_SECONDS": "1",
                **environment,
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], patience: float = 30.0) -> int:
    """End a worker by TERM, and by force when it does not listen; give its exit code."""
    process.terminate()
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()
