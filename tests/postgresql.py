# SPDX-License-Identifier: Apache-2.0
"""A separate PostgreSQL server whose log a test can read."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.requirements import skip_or_fail

OWNER = "postgres"
"""The user of the server when the tests run as root, who may not start one."""


@dataclass(frozen=True)
class PostgresServer:
    """A running server that listens on a socket in its folder only."""

    folder: Path

    @property
    def url(self) -> str:
        """URL of its first database, as its superuser."""
        return f"postgresql+psycopg://{OWNER}@/postgres?host={self.folder}"

    def url_of(self, user: str, database: str) -> str:
        """URL of another database, as another user."""
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder}"

    def run_file(self, path: Path) -> None:
        """Run a file of SQL as the superuser."""
        command = [_program("psql"), "--quiet", "--set=ON_ERROR_STOP=1", f"--host={self.folder}", f"--username={OWNER}"]
        subprocess.run([*command, "--dbname=postgres", f"--file={path}"], check=True, capture_output=True, timeout=60)

    @property
    def log(self) -> str:
        """All that it logged."""
        return (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")


@contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """Start a new server with `settings`, and stop it at the end."""
    user = OWNER if os.geteuid() == 0 else None
    if user is not None and not _exists(user):
        skip_or_fail(f"a user {OWNER}, because root may not start PostgreSQL")
    with tempfile.TemporaryDirectory(prefix="bd-") as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [_program(program), *arguments], user=user, cwd=folder, check=True, timeout=120,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

        run("initdb", f"--pgdata={data}", "--auth=trust", f"--username={OWNER}", "--no-sync", "--encoding=UTF8")
        given = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off", **settings}
        with (data / "postgresql.conf").open("a", encoding="utf-8") as config:
            config.writelines(f"{key} = '{value}'\n" for key, value in given.items())
        run("pg_ctl", "start", "-w", f"--pgdata={data}", f"--log={folder / 'server.log'}")
        try:
            yield PostgresServer(folder)
        finally:
            run("pg_ctl", "stop", "--mode=immediate", f"--pgdata={data}")


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _program(name: str) -> str:
    """The path of a program of PostgreSQL: Debian's are not in the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = next((str(folder / name) for folder in folders if (folder / name).exists()), shutil.which(name))
    return found or skip_or_fail(f"PostgreSQL's program {name}")
