# SPDX-License-Identifier: Apache-2.0
"""Limits of this folder: a unit test starts no process and connects to no server.

The fixtures of the servers are replaced by ones that fail, and so does each call that starts a process.
"""

import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"}
"""Audit events of Python for a new process (library reference, audit events table)."""

_during_a_test = False


def _refuse_processes(event: str, _arguments: Any) -> None:
    if _during_a_test and event in STARTS:
        raise RuntimeError(f"A unit test starts no process ({event}): move it to tests/integration")


# An audit hook cannot be removed; it does nothing between tests and in other folders.
sys.addaudithook(_refuse_processes)


@pytest.fixture(autouse=True)
def no_process() -> Iterator[None]:
    """Let each call fail that starts a process."""
    global _during_a_test  # noqa: PLW0603 - the hook has no other way to know
    _during_a_test = True
    yield
    _during_a_test = False


def _refuse_server() -> NoReturn:
    pytest.fail("A unit test connects to no server: move it to tests/integration")


@pytest.fixture(scope="session")
def valkey_socket() -> None:
    """Replace the fixture that starts a Valkey server."""
    _refuse_server()


@pytest.fixture(scope="session")
def _rabbitmq_host() -> None:
    _refuse_server()


@pytest.fixture(scope="session")
def postgres_template() -> None:
    """Replace the fixture that connects to a PostgreSQL server."""
    _refuse_server()
