# SPDX-License-Identifier: Apache-2.0
"""The worker and its supervisor: readiness, watchdog and shutdown; and a worker without a broker."""

import os
import signal
import socket
import uuid
from dataclasses import replace

import pytest

from tests.polling import wait_until
from workers.runtime.connection import Connection
from workers.supervision import heartbeat, systemd_notify

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
def supervisor():
    """A supervisor's socket, with its address as in NOTIFY_SOCKET."""
    address = f"bookdrop-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        try:
            notifications.bind(f"\0{address}")
        except OSError:
            pytest.skip("needs Linux: abstract sockets")
        notifications.settimeout(90)
        yield f"@{address}", notifications


@pytest.mark.long
def test_worker_without_a_broker_stays_alive(supervisor, deployment):
    """A worker that waits for its broker sends watchdog messages, so that it is not killed; TERM ends it."""
    address, notifications = supervisor
    deployment = replace(deployment, broker_url=f"redis+socket://{deployment.folder}/unreachable.sock")
    process = deployment.start_worker("returns", "--concurrency", "1", NOTIFY_SOCKET=address)
    try:
        states = [notifications.recv(64).decode() for _ in range(4)]
        beats = deployment.heartbeat("returns").exists()
        process.send_signal(signal.SIGTERM)
        while states[-1] != systemd_notify.STOPPING:
            states.append(notifications.recv(64).decode())
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()

    assert states[:4] == [
        systemd_notify.WATCHDOG,
        systemd_notify.READY,
        systemd_notify.WATCHDOG,
        systemd_notify.WATCHDOG,
    ]
    assert beats
    assert not deployment.heartbeat("returns").exists()
    assert code == 0


def test_forked_child_sends_no_heartbeat(supervisor, monkeypatch, tmp_path):
    """Only the worker's own process sends heartbeats: a child does not make a hanging parent look alive."""
    address, notifications = supervisor
    monkeypatch.setenv(systemd_notify.VARIABLE, address)
    monkeypatch.setattr(heartbeat.Heartbeat, "path", tmp_path / "heartbeat")
    monkeypatch.setattr(heartbeat.Heartbeat, "worker_pid", os.getpid() + 1)

    heartbeat.beat()

    assert not (tmp_path / "heartbeat").exists()
    notifications.setblocking(False)
    with pytest.raises(BlockingIOError):
        notifications.recv(64)


def test_connecting_sends_a_heartbeat(monkeypatch, tmp_path):
    """A server that accepts each connection and refuses the next step: the worker retries, and sends heartbeats."""
    monkeypatch.setattr(heartbeat.Heartbeat, "path", tmp_path / "heartbeat")
    monkeypatch.setattr(heartbeat.Heartbeat, "worker_pid", os.getpid())

    with Connection("memory://") as connection:
        connection.ensure_connection()

    assert (tmp_path / "heartbeat").exists()


@pytest.mark.parametrize("address", [None, "", "relative", "/no/such/socket"])
def test_missing_supervisor_is_ignored(monkeypatch, address):
    """Without a supervisor, or with an unreachable one, a worker continues."""
    monkeypatch.delenv(systemd_notify.VARIABLE, raising=False)
    if address is not None:
        monkeypatch.setenv(systemd_notify.VARIABLE, address)

    assert systemd_notify.notify(systemd_notify.WATCHDOG) is False


@pytest.mark.long
@pytest.mark.parametrize(
    "role", [("returns",), ("printing", "--branch", "main"), ("housekeeping",)], ids=lambda r: r[0]
)
def test_killed_worker_leaves_no_process(role, deployment):
    """After SIGKILL of a worker its pool ends, and its schedule, which would run beside the next worker's."""
    process = deployment.start_worker(*role)
    ready = "beat: Starting" if role[0] == "housekeeping" else "ready."
    wait_until(lambda: ready in deployment.log(role[0]), "the worker is ready")

    process.kill()
    process.wait()

    try:
        wait_until(lambda: not is_alive(process.pid), "no process of the worker is left")
    finally:
        if is_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def is_alive(group):
    """Whether any process is left in a group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
