# SPDX-License-Identifier: Apache-2.0
"""Two workers of one role on one machine: two names, two heartbeat files, and counted as two."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from tests.flower import FlowerProcess, running
from tests.polling import wait_until
from tests.processes import kill_group, stop
from workers.supervision.node_name import file_name, node_name

pytestmark = [pytest.mark.databases("sqlite")]


@pytest.fixture
def start(deployment, tmp_path):
    """Start a worker whose heartbeat file is at the default path, in a temporary folder of the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments):
        with (tmp_path / f"worker-{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "workers.cli", "worker", *arguments, "--concurrency", "1"], stdout=log, stderr=log,
                env=deployment.environment(TMPDIR=str(tmp_path), BOOKDROP_SWEEP_INTERVAL_SECONDS="1"),
                start_new_session=True,
            )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            stop(process)


@pytest.mark.long
@pytest.mark.brokers("redis", "rabbitmq")
def test_two_workers_of_a_role_are_counted_as_two(deployment, library, start, tmp_path):
    """The doctor, the metrics, Flower and the liveness check see both; a killed one leaves its name free."""
    flower = FlowerProcess(deployment)
    first = start("returns")
    wait_until(lambda: list(tmp_path.glob("bookdrop-*/returns.heartbeat")), "the first worker runs")
    start("returns")
    wait_until(lambda: list(tmp_path.glob("bookdrop-*/returns-2.heartbeat")), "the second worker runs")

    with running(flower):
        shown = wait_until(lambda: found if len(found := _workers_in(flower)) == 2 else None, "Flower shows both")
    metrics = deployment.bookdrop("metrics", "--once").stdout
    diagnosis = json.loads(deployment.bookdrop("doctor", "--json").stdout)
    both = deployment.bookdrop("health", "live", "returns", "--json", TMPDIR=str(tmp_path))
    first.send_signal(signal.SIGSTOP)
    one = wait_until(
        lambda: _failed(deployment.bookdrop("health", "live", "returns", "--within", "8", TMPDIR=str(tmp_path)))
    )
    first.send_signal(signal.SIGCONT)
    kill_group(first)
    start("returns")
    again = wait_until(lambda: deployment.bookdrop("health", "live", "returns", TMPDIR=str(tmp_path)).returncode == 0)

    assert re.search(r'bookdrop_workers\{role="returns"\} 2\.0', metrics), metrics
    messages = [each["message"] for each in diagnosis]
    assert any(set(each.removeprefix("returns: ").split(", ")) == shown for each in messages), messages
    assert (both.returncode, len(json.loads(both.stdout)["workers"])) == (0, 2)
    assert "returns.heartbeat" in one.stdout
    assert again


def _workers_in(flower):
    with urllib.request.urlopen(f"{flower.url}/metrics", timeout=60) as page:
        return set(re.findall(r'worker="(returns@[^"]*)"', page.read().decode()))


def _failed(done):
    return done if done.returncode == 1 else None


def test_names_are_numbered_and_reused():
    """The first free number is taken; another broker has other names; and a login in the broker's URL has no effect."""
    one, other = "redis://a:secret@broker/0", "redis://broker/1"

    with (
        node_name("returns", "host", one) as first,
        node_name("returns", "host", "redis://broker/0") as second,
        node_name("returns", "host", other) as elsewhere,
    ):
        names = [first, second, elsewhere]
    with node_name("returns", "host", one) as again:
        names.append(again)

    assert names == ["returns@host", "returns@host_2", "returns@host", "returns@host"]


@pytest.mark.parametrize(
    ("node", "file"),
    [
        ("returns", "returns"),
        ("returns@host", "returns"),
        ("printing-north@my_host_2", "printing-north-2"),
        ("returns@a_b", "returns"),
    ],
)
def test_heartbeat_files_have_the_number_of_their_worker(node, file):
    """The host is the same for all workers of a machine, so it is left out."""
    assert file_name(node) == file
