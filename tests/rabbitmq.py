# SPDX-License-Identifier: Apache-2.0
"""A RabbitMQ for the tests: a virtual host of one's own on the server that runs here, gone at the end."""

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

    def url_by(self, port: int) -> str:
        """Its URL by way of another port of this machine, such as a proxy's."""
        there = urlsplit(self.url)
        return there._replace(netloc=f"{there.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()

    def queues(self, *columns: str) -> dict[str, dict[str, Any]]:
        """What the server says of each queue, by name."""
        told = control("list_queues", "-p", self.name, "name", *columns, "--formatter", "json")
        return {row["name"]: row for row in json.loads(told)}

    def heartbeats(self) -> list[int]:
        """What was agreed on with each connection: seconds between two heartbeats, 0 for none."""
        told = json.loads(control("list_connections", "vhost", "timeout", "--formatter", "json"))
        return [row["timeout"] for row in told if row["vhost"] == self.name]

    def clear(self) -> None:
        """Delete the queues that tests use. To delete one that is not there is no error."""
        self.delete(
            RETURNS_QUEUE,
            HOUSEKEEPING_QUEUE,
            PRINT_ACTIONS_QUEUE,
            DEAD_LETTER_QUEUE,
            printing_queue("main"),
            *map(reply_queue, STATIONS),
        )

    def delete(self, *queues: str) -> None:
        """Delete queues, whoever uses them."""
        with Connection(self.url) as connection:
            channel: Any = connection.default_channel
            for queue in queues:
                channel.queue_delete(queue)


def control(*command: str) -> str:
    """Run `rabbitmqctl`; gives what it printed."""
    done = subprocess.run(["rabbitmqctl", "--quiet", *command], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or done.stdout.strip())
    return done.stdout


@contextmanager
def virtual_host() -> Iterator[VirtualHost | None]:
    """A new virtual host, or `None` where none can be made."""
    if shutil.which("rabbitmqctl") is None or os.geteuid() != 0:
        yield None
        return
    name = f"bookdrop-test-{uuid.uuid4().hex[:10]}"
    try:
        control("add_vhost", name)
        control("set_permissions", "-p", name, USER, ".*", ".*", ".*")
    except (RuntimeError, subprocess.TimeoutExpired):
        yield None
        return
    try:
        yield VirtualHost(name, f"{SERVER}/{name}")
    finally:
        control("delete_vhost", name)
