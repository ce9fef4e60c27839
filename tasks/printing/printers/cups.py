# SPDX-License-Identifier: Apache-2.0
"""`lp://queue`: a queue of the CUPS server that this machine uses.

A CUPS queue is an IPP printer. Over IPP it returns a job number and can be queried later, while the `lp` command
returns text.
"""

import socket
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from tasks.network_exchange import Deadline
from tasks.printing.printers.ipp import PORT, IppAddress, network_address

SOCKETS: Final = (Path("/run/cups/cups.sock"), Path("/var/run/cupsd"))
"""The sockets on which CUPS listens, on Linux and on macOS."""


def _connect_to_socket(path: str, deadline: Deadline, at_most: timedelta) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(deadline.remaining(at_most))
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def queue_address(queue: str, environment: Mapping[str, str]) -> IppAddress:
    """The address of `queue` on the server that CUPS' own commands use: `CUPS_SERVER`, or this machine.

    `CUPS_SERVER` is a host, `host:port` or the path of a socket; a version after it (`/version=1.1`) is ignored.
    """
    queue_path = f"/printers/{queue}"
    server = environment.get("CUPS_SERVER") or next((str(path) for path in SOCKETS if path.exists()), "localhost")
    if server.startswith("/"):
        return IppAddress(f"ipp://localhost{queue_path}", queue_path, partial(_connect_to_socket, server))
    host, _, port = server.partition("/")[0].rpartition(":")
    if host and port.isdecimal():
        return network_address(host.strip("[]"), int(port), queue_path, None)
    return network_address(server.partition("/")[0], PORT, queue_path, None)
