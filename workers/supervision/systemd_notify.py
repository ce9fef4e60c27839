# SPDX-License-Identifier: Apache-2.0
"""Notify the supervisor that started the worker: ready, alive, stopping. Source: sd_notify(3) of systemd."""

import os
import socket

VARIABLE = "NOTIFY_SOCKET"

READY = "READY=1"
WATCHDOG = "WATCHDOG=1"
STOPPING = "STOPPING=1"


def notify(state: str) -> bool:
    """Send `state` to the supervisor; return False if there is none, or if its socket is not reachable.

    Sends one datagram and does not wait: a busy supervisor must not block a worker.
    """
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            # An address in the kernel's abstract namespace is written with an @ in place of its zero byte.
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.send(state.encode())
        except OSError:
            return False
    return True
