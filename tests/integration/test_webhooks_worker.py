# SPDX-License-Identifier: Apache-2.0
"""Webhooks from real workers: from the scan through a broker to a receiver, while the sender is killed."""

import os
import re
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from schemas.models import WebhookDelivery
from tests.polling import wait_until
from tests.processes import kill_group
from tests.webhook_receiver import running, silent, status, verify
from workers.cli import main

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "send-webhooks.md"


@pytest.fixture
def bookdrop(library, database_url, monkeypatch, tmp_path):
    """Run `bookdrop webhooks ...`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)

    def run(*arguments):
        result = CliRunner().invoke(main, ["webhooks", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.mark.long
@pytest.mark.brokers("redis", "rabbitmq")
@pytest.mark.databases("postgres")
def test_killed_housekeeping_worker_loses_no_event(bookdrop, deployment, raw_station, library, rows):
    """Thirty scans arrive once each by their ids, although the worker that sends is killed while it sends.

    TERM ends the next worker in order: nothing is left claimed.
    """
    barcodes = [library.request()[1][0] for _ in range(30)]
    fast = {"BOOKDROP_SWEEP_INTERVAL_SECONDS": "0.5", "BOOKDROP_WEBHOOK_TIMEOUT_SECONDS": "1"}
    with running() as receiver:
        bookdrop("add", receiver.url, "--allow-http")
        receiver.respond = silent
        doomed = deployment.start_worker("housekeeping", **{**fast, "BOOKDROP_WEBHOOK_TIMEOUT_SECONDS": "30"})
        with deployment.worker("returns"):
            raw_station.replies_to(*[raw_station.send(library.scan(barcode)) for barcode in barcodes])
        wait_until(lambda: receiver.received, "a message is being sent")
        kill_group(doomed)
        receiver.respond = status(200)
        first = receiver.ids[0]
        with library.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE webhook_endpoints SET claimed_until = now()")

        with deployment.worker("housekeeping", **fast):
            wait_until(
                lambda: {row.state for row in rows(WebhookDelivery)} == {"delivered"} and len(set(receiver.ids)) == 30,
                lambda: f"{len(set(receiver.ids))} of 30 events arrived",
            )

    assert first in receiver.ids[1:], "the message that was being sent is sent again"
    found = [each.json["data"]["items"][0]["barcodes"][0] for each in receiver.received]
    assert set(found) == set(barcodes)
    assert "enabled" in bookdrop("list")
    with library.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT claimed_by FROM webhook_endpoints").scalar() is None


@pytest.mark.databases("sqlite")
def test_receiver_of_the_guide_accepts_messages_and_refuses_forged_ones(bookdrop, tmp_path):
    """The program in the guide runs as it is printed there."""
    [program] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    output = bookdrop("add", f"http://127.0.0.1:{port}/", "--allow-http")
    [secret] = re.findall(r"whsec_\S+", output)

    def start(secret):
        environment = {**os.environ, "WEBHOOK_SECRET": secret, "PORT": str(port)}
        process = subprocess.Popen(
            [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path
        )
        address = ("127.0.0.1", port)
        wait_until(lambda: socket.create_connection(address), "it listens", ignore=(OSError,)).close()
        return process

    def end(process):
        process.terminate()
        return process.communicate(timeout=60)[0]

    process = start(secret)
    try:
        assert "acknowledged the test message with HTTP 204" in bookdrop("test", "1")
    finally:
        assert end(process) == "webhook.test None\n"
    process = start("whsec_" + "QUFB" * 11)
    try:
        refused = CliRunner().invoke(main, ["webhooks", "test", "1"])
    finally:
        assert end(process) == ""
    assert refused.exit_code == 3
    assert "HTTP 401" in refused.output


def test_verification_of_the_tests_refuses_an_old_message():
    """The receiver of the tests can refuse: the vector of the reference libraries, at its time and later."""
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }  # fmt: skip
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'

    assert verify(secret, headers, body, 1614265330)
    assert not verify(secret, headers, body, 1614265330 + timedelta(minutes=6).total_seconds())
