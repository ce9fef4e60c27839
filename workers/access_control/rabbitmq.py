# SPDX-License-Identifier: Apache-2.0
"""Users of a RabbitMQ server: what a station, a worker, operations and Flower may do in our virtual host.

RabbitMQ has three permissions, each a regular expression over names of queues and exchanges: to configure (declare and
delete), to write (publish to an exchange), to read (consume from a queue). All who publish do so over the anonymous
exchange, which it calls `amq.default`, and whoever may write there may write to any queue.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas import topology
from schemas.topology import reply_queue
from workers.access_control.redis import FLOWER, OPERATIONS, WORKER, station_user

_ANONYMOUS: Final = r"amq\.default"
_MONITORING: Final = r"celeryev(\..*)?|(.*\.)?(reply\.)?celery\.pidbox"
"""Events and remote control, Celery's own."""


@dataclass(frozen=True)
class Permissions:
    """One user, and the regular expressions of what it may do."""

    name: str
    configure: str
    write: str
    read: str


def permissions(stations: Sequence[str]) -> list[Permissions]:
    """All users: a user for each of `stations`, and the others."""
    work = "|".join(
        [
            *map(re.escape, (topology.RETURNS_QUEUE, topology.HOUSEKEEPING_QUEUE)),
            *map(re.escape, (topology.PRINT_ACTIONS_QUEUE, topology.DEAD_LETTER_QUEUE)),
            re.escape(topology.PRINTING_QUEUE_PREFIX) + ".*",
            re.escape(topology.REPLY_QUEUE_PREFIX) + ".*",
            # Celery declares these for quorum queues, and we have nothing delivered late.
            "celery_delayed.*",
            _MONITORING,
        ]
    )
    ours = f"^({work})$"
    monitoring = f"^({_MONITORING})$"
    return [
        *(Permissions(name, ours, f"^({work}|{_ANONYMOUS})$", ours) for name in (WORKER, OPERATIONS)),
        Permissions(FLOWER, monitoring, monitoring, monitoring),
        *(
            Permissions(station_user(code), own, f"^{_ANONYMOUS}$", own)
            for code in stations
            for own in (f"^{re.escape(reply_queue(code))}$",)
        ),
    ]
