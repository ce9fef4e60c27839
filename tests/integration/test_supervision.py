# SPDX-License-Identifier: Apache-2.0
"""What a worker tells its supervisor: up, alive, ending; and that it lives while its broker is away."""

import os
import signal
import socket
import uuid
from dataclasses import replace

import pytest

from tests.polling import wait_until
from workers import heartbeat, systemd_notify
from workers.runtime.connection import Connection

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
def supervisor():
    """A supervisor that listens; gives its address as the variable has it, and its socket."""
    address = f"bookdrop-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        try:
            notifications.bind(f"\0{address}")
        except OSError:
            pytest.skip("needs Linux: abstract sockets")
        notifications.settimeout(90)
        yield f"@{address}", notifications


@pytest.mark.long
def test_a_worker_lives_while_its_broker_is_away(supervisor, deployment):
    """A supervisor that ends whoever is silent leaves a worker alone that waits for its broker; TERM still ends it."""
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


def test_a_forked_child_does_not_beat_for_its_parent(supervisor, monkeypatch, tmp_path):
    """Only the process whose heart it is beats: a child that goes on does not make a hanging parent look alive."""
    address, notifications = supervisor
    monkeypatch.setenv(systemd_notify.VARIABLE, address)
    monkeypatch.setattr(heartbeat.Heartbeat, "path", tmp_path / "heartbeat")
    monkeypatch.setattr(heartbeat.Heartbeat, "worker_pid", os.getpid() + 1)

    heartbeat.beat()

    assert not (tmp_path / "heartbeat").exists()
    notifications.setblocking(False)
    with pytest.raises(BlockingIOError):
        notifications.recv(64)


def test_a_worker_beats_whenever_it_connects(monkeypatch, tmp_path):
    """A server that takes each connection at once and refuses what comes next: the worker tries on, and does not hang."""
    monkeypatch.setattr(heartbeat.Heartbeat, "path", tmp_path / "heartbeat")
    monkeypatch.setattr(heartbeat.Heartbeat, "worker_pid", os.getpid())

    with Connection("memory://") as connection:
        connection.ensure_connection()

    assert (tmp_path / "heartbeat").exists()


@pytest.mark.parametrize("address", [None, "", "relative", "/nobody/listens/here"])
def test_no_supervisor_is_no_trouble(monkeypatch, address):
    """Without a supervisor, or with one that is gone, a worker goes on."""
    monkeypatch.delenv(systemd_notify.VARIABLE, raising=False)
    if address is not None:
        monkeypatch.setenv(systemd_notify.VARIABLE, address)

    assert systemd_notify.notify(systemd_notify.WATCHDOG) is False


@pytest.mark.long
@pytest.mark.parametrize(
    "role", [("returns",), ("printing", "--branch", "main"), ("housekeeping",)], ids=lambda r: r[0]
)
def test_nothing_outlives_a_worker_that_was_killed(role, deployment):
    """SIGKILL of a worker alone: its pool ends, and so does its schedule, which would run beside the next worker's."""
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
