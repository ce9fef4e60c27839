# SPDX-License-Identifier: Apache-2.0
"""What a worker tells the supervisor that started it: up, alive, ending. Source: sd_notify(3) of systemd."""

import os
import socket

VARIABLE = "NOTIFY_SOCKET"

READY = "READY=1"
WATCHDOG = "WATCHDOG=1"
STOPPING = "STOPPING=1"


def notify(state: str) -> bool:
    """Send `state` to the supervisor; False when there is none, or when it does not listen.

    One datagram, never waited for: a supervisor that is busy must not hold up a worker.
    """
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        speaker.setblocking(False)
        try:
            # The kernel's own name space is written with an @ and meant with a zero byte.
            speaker.connect("\0" + address[1:] if address.startswith("@") else address)
            speaker.send(state.encode())
        except OSError:
            return False
    return True
