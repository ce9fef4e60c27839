# SPDX-License-Identifier: Apache-2.0
"""The node name of a worker, for example `returns@host`, which each worker of a machine has alone."""

import errno
import hashlib
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MAX_WORKERS: Final = 256
"""Workers of one role on one machine and one broker."""

_LOGIN: Final = re.compile(r"(?<=//)[^/@]*@")


class NoNodeNameError(Exception):
    """All node names of a role are in use on this machine."""


@contextmanager
def node_name(name: str, host: str, broker_url: str) -> Iterator[str]:
    """Claim a node name for this process: `name@host`, or `name@host_2` and so on when other workers have the first.

    Celery identifies workers by this name: two with the same name count as one, and on RabbitMQ the second one cannot
    start. The number comes after the host, because the permissions of a broker's user begin with `name@`. A socket of
    Linux's abstract namespace holds the name, without a file: it is free again when the process ends in any way. Other
    systems have no such sockets, and there the name is always `name@host`. Raises `NoNodeNameError`.
    """
    if sys.platform != "linux":
        yield f"{name}@{host}"
        return
    broker = _LOGIN.sub("", broker_url)
    for number in range(1, MAX_WORKERS + 1):
        node = f"{name}@{host}" if number == 1 else f"{name}@{host}_{number}"
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # The digest, because an address has at most 107 bytes, and every user may list addresses.
        digest = hashlib.sha256(f"{broker} {node}".encode()).hexdigest()
        try:
            holder.bind(f"\0bookdrop-worker-{digest}")
        except OSError as error:
            holder.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        os.register_at_fork(after_in_child=holder.close)  # a process of the pool may outlive its worker
        with holder:
            yield node
        return
    raise NoNodeNameError(
        f"{MAX_WORKERS} workers {name} run on this machine. Start none, or stop those that you do not need."
    )


def file_name(node: str) -> str:
    """Return `node` without its host, for the name of a file: `returns`, or `returns-2` for `returns@host_2`."""
    name, _, host = node.partition("@")
    number = host.rpartition("_")[2] if "_" in host else ""
    return f"{name}-{number}" if number.isascii() and number.isdigit() else name
