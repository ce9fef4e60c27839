# SPDX-License-Identifier: Apache-2.0
"""The messages of remote control that `doctor` and `status` send, on both brokers: none becomes a quarantined message."""

import json
import subprocess
import sys

import pytest

from tests.polling import wait_until

pytestmark = [
    pytest.mark.long,
    pytest.mark.thorough,
    pytest.mark.databases("sqlite"),
    pytest.mark.brokers("redis", "rabbitmq"),
]


def test_queries_of_doctor_and_status_never_land_in_quarantine(deployment, library):
    """Answered, killed before the answer, and sent to a worker that is killed: no query becomes a dead letter."""

    def ask(command):
        return subprocess.Popen(
            [sys.executable, "-m", "workers.cli", command], env=deployment.environment(), cwd=deployment.folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    with deployment.worker("housekeeping"):
        worker = deployment.start_worker("returns")
        try:
            wait_until(deployment.heartbeat("returns").exists, "the worker has started")
            for command in ("doctor", "status"):
                assert "returns@" in deployment.bookdrop(command).stdout
            killed = [ask("doctor") for _ in range(2)]
            asking = [ask("status") for _ in range(2)]
            wait_until(lambda: any(each.poll() is None for each in asking), "a query is under way")
            for each in killed:
                each.kill()
                each.wait(60)
        finally:
            worker.kill()
            worker.wait(60)
        for each in asking:
            each.wait(120)
        with deployment.worker("returns"):
            wait_until(lambda: "returns@" in deployment.bookdrop("status").stdout, "the new worker responds")
            assert deployment.bookdrop("quarantine", "gather").returncode == 0
            found = deployment.bookdrop("quarantine", "list", "--all", "--json")

    assert json.loads(found.stdout)["messages"] == []
