# SPDX-License-Identifier: Apache-2.0
"""Settings of all tests. Their fixtures are real parts, in `tests/fixtures/`.

The servers are a Valkey server of the test process, SQLite, and PostgreSQL and RabbitMQ where they can be reached.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import workers.app  # noqa: F401 - the current Celery application, as in a worker: tasks called in a test are of this one
from tests.requirements import is_thorough

pytest_plugins = (
    "tests.fixtures.databases",
    "tests.fixtures.brokers",
    "tests.fixtures.workers",
    "tests.fixtures.tasks",
    "tests.fixtures.stations",
    "tests.fixtures.flower",
)

# A shell starts a background job with SIGINT ignored, and child processes inherit that: `make test &`.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The duration of an example depends on the load of the machine, not on the program.
settings.register_profile("bookdrop", deadline=None)
settings.load_profile("bookdrop")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options `--thorough`, which CI implies, and `--pgbouncer`."""
    parser.addoption("--thorough", action="store_true", help="also run the tests that take minutes, as CI does")
    parser.addoption("--pgbouncer", action="store_true", help="reach PostgreSQL through PgBouncer in transaction mode")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start the long tests first, so that processes that finish early run the short ones meanwhile."""
    if not is_thorough(config):
        minutes = pytest.mark.skip(reason="one of many that take minutes together: make test ARGS=--thorough")
        for item in items:
            if item.get_closest_marker("thorough") is not None:
                item.add_marker(minutes)
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session", autouse=True)
def working_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run in an empty folder without the settings of the user, so that no data of `make run` is in reach."""
    before = Path.cwd()
    given = {name: os.environ.pop(name) for name in list(os.environ) if name in {"BOOKDROP_CONFIG", "BOOKDROP_HOME"}}
    os.chdir(tmp_path_factory.mktemp("working-folder"))
    yield
    os.chdir(before)
    os.environ.update(given)
