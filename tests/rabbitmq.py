# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ for tests: a new virtual host on the server of this machine, deleted at the end."""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from kombu import Connection

from schemas.topology import (
    DEAD_LETTER_QUEUE,
    HOUSEKEEPING_QUEUE,
    PRINT_ACTIONS_QUEUE,
    RETURNS_QUEUE,
    printing_queue,
    reply_queue,
)

USER = "guest"
STATIONS = ("main-desk-1", "main-desk-2", "north-desk-1")
SERVER = f"amqp://{USER}:guest@127.0.0.1:5672"


class VirtualHost:
    """One virtual host, with its URL."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url

    @property
    def port(self) -> int:
        """The server's port."""
        return urlsplit(self.url).port or 5672

    def url_through(self, port: int) -> str:
        """Its URL through another port of this machine, for example that of a proxy."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()

    def queues(self, *columns: str) -> dict[str, dict[str, Any]]:
        """Columns of `rabbitmqctl list_queues`, by the queue's name."""
        listed = rabbitmqctl("list_queues", "-p", self.name, "name", *columns, "--formatter", "json")
        return {row["name"]: row for row in json.loads(listed)}

    def heartbeats(self) -> list[int]:
        """The negotiated heartbeat timeout of each connection in seconds, 0 for none."""
        listed = json.loads(rabbitmqctl("list_connections", "vhost", "timeout", "--formatter", "json"))
        return [row["timeout"] for row in listed if row["vhost"] == self.name]

    def clear(self) -> None:
        """Delete the queues that tests use. Deleting one that does not exist is not an error."""
        self.delete(
            RETURNS_QUEUE,
            HOUSEKEEPING_QUEUE,
            PRINT_ACTIONS_QUEUE,
            DEAD_LETTER_QUEUE,
            printing_queue("main"),
            *map(reply_queue, STATIONS),
        )

    def delete(self, *queues: str) -> None:
        """Delete queues, also those in use."""
        with Connection(self.url) as connection:
            channel: Any = connection.default_channel
            for queue in queues:
                channel.queue_delete(queue)


def rabbitmqctl(*command: str, stdin: str | None = None) -> str:
    """Run `rabbitmqctl`; return its output. It ends by itself: eleven that hang take all ports of the tool."""
    done = subprocess.run(
        ["rabbitmqctl", "--quiet", "--timeout", "200", *command],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or done.stdout.strip())
    return done.stdout


@contextmanager
def virtual_host() -> Iterator[VirtualHost | None]:
    """A new virtual host, or `None` where none can be created."""
    if shutil.which("rabbitmqctl") is None or os.geteuid() != 0:
        yield None
        return
    name = f"bookdrop-test-{uuid.uuid4().hex[:10]}"
    try:
        rabbitmqctl("add_vhost", name)
        rabbitmqctl("set_permissions", "-p", name, USER, ".*", ".*", ".*")
    except (RuntimeError, subprocess.TimeoutExpired):
        yield None
        return
    try:
        yield VirtualHost(name, f"{SERVER}/{name}")
    finally:
        rabbitmqctl("delete_vhost", name)
