# SPDX-License-Identifier: Apache-2.0
"""Commands that run until TERM, started as background jobs of a shell that is not interactive: with SIGINT ignored."""

import subprocess
import sys
from typing import Any

import pytest

from tests.library import KEY
from tests.network import free_port
from tests.polling import wait_until
from tests.processes import STATION, Deployment, kill_group

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite")]

IN_BACKGROUND = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    " os.execv(sys.executable, [sys.executable, '-m', *sys.argv[1:]])"
)
"""Starts a command as a shell without job control starts `command &` (POSIX, Shell Command Language, 2.11)."""


def options_of(command: str) -> tuple[list[str], str]:
    """The command line, and a text that it logs once it runs."""
    return {
        "metrics": (["workers.cli", "metrics", "--listen", f"127.0.0.1:{free_port()}"], "Metrics: http"),
        "flower": (["workers.cli", "flower", "--port", str(free_port())], "flower_started"),
        "returns": (["workers.cli", "worker", "returns"], " ready."),
        "printing": (["workers.cli", "worker", "printing"], " ready."),
        "housekeeping": (["workers.cli", "worker", "housekeeping"], " ready."),
        "up": (["workers.cli", "up", "--stay", "--no-flower"], "Running until"),
        "desk": (["stations.cli", "desk"], ":reprint"),
    }[command]


@pytest.mark.parametrize("command", ["metrics", "flower", "returns", "printing", "housekeeping", "up", "desk"])
def test_term_ends_a_background_job_in_order(deployment: Deployment, library: Any, command: str) -> None:
    """A command that ignores SIGINT ends at TERM with exit code 0, as after Ctrl-C."""
    arguments, started = options_of(command)
    log = deployment.folder / "background.log"
    environment = deployment.environment(
        BOOKDROP_HOME=str(deployment.folder / "home"), BOOKDROP_STATION_CODE=STATION, BOOKDROP_STATION_KEY=KEY,
        BOOKDROP_STATION_BROKER_URL=deployment.broker_url, BOOKDROP_STATION_JOURNAL=str(deployment.journal()),
        BOOKDROP_HEARTBEAT_FILE=str(deployment.heartbeat(command)),
    )  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", IN_BACKGROUND, *arguments], stdin=subprocess.PIPE, stdout=output, stderr=output,
            env=environment, cwd=deployment.folder, start_new_session=True,
        )  # fmt: skip
    try:
        if command == "desk" and process.stdin is not None:
            process.stdin.write(b":help\n")
            process.stdin.flush()
        wait_until(lambda: started in log.read_text(), lambda: log.read_text() or command)
        process.terminate()
        code = process.wait(120)
    finally:
        if process.poll() is None:
            kill_group(process)
        if process.stdin is not None:
            process.stdin.close()

    assert code == 0, log.read_text()
