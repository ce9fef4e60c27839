# SPDX-License-Identifier: Apache-2.0
"""A separate PgBouncer in transaction mode, in front of a PostgreSQL server."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.network import free_port
from tests.polling import wait_until
from tests.requirements import skip_or_fail


@dataclass(frozen=True)
class PgBouncer:
    """A running PgBouncer, which forwards every database of one server."""

    port: int
    process: subprocess.Popen[bytes]

    def url_of(self, database: str) -> str:
        """URL of a database through it."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def ask(self, statement: str) -> list[dict[str, Any]]:
        """Rows of its administration console, for example of `SHOW POOLS`."""
        address = f"postgresql://postgres@127.0.0.1:{self.port}/pgbouncer"
        with psycopg.connect(address, autocommit=True, row_factory=dict_row) as console:
            return console.execute(statement.encode()).fetchall()


@contextmanager
def pgbouncer(server: str, **settings: str) -> Iterator[PgBouncer]:
    """Start PgBouncer in front of `server`, a connection string of libpq; the user is `postgres`.

    It is in transaction mode, with few connections to the server, and refuses startup options. `settings` change that.
    """
    program = find_pgbouncer() or skip_or_fail("PgBouncer (Debian: apt install pgbouncer)")
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="bd-") as name:
        folder = Path(name)
        port = free_port()
        configuration = configure(folder, server, port, **settings)
        if user is not None:
            shutil.chown(folder, user)
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [program, str(configuration)], user=user, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        bouncer = PgBouncer(port, process)
        try:
            wait_until(lambda: responds(port), "PgBouncer responds")
            yield bouncer
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def find_pgbouncer() -> str | None:
    """The path of the program. Debian's is not in the PATH of every user."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def configure(folder: Path, server: str, port: int, **settings: str) -> Path:
    """Write the configuration into `folder`; return its path."""
    given = {
        "listen_addr": "127.0.0.1", "listen_port": str(port), "unix_socket_dir": "",
        "auth_type": "trust", "auth_file": str(folder / "users.txt"), "admin_users": "postgres",
        "pool_mode": "transaction", "default_pool_size": "10", "server_login_retry": "1", **settings,
    }  # fmt: skip
    lines = ["[databases]", f"* = {server}", "[pgbouncer]", *(f"{key} = {value}" for key, value in given.items())]
    (folder / "users.txt").write_text('"postgres" ""\n', encoding="utf-8")
    path = folder / "pgbouncer.ini"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def responds(port: int) -> bool:
    """True when its administration console accepts a connection."""
    try:
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/pgbouncer", connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True
