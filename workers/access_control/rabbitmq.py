# SPDX-License-Identifier: Apache-2.0
"""Users of a RabbitMQ server: the permissions of stations, workers, operations and Flower in the virtual host.

RabbitMQ has three permissions, each a regular expression over names of queues and exchanges: configure (declare and
delete), write (publish to an exchange), read (consume from a queue). Every publisher uses the anonymous exchange, which
RabbitMQ names `amq.default`. A user who may write there may write to any queue.
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
"""Celery's exchanges and queues of events and remote control."""


@dataclass(frozen=True)
class Permissions:
    """One user, and the regular expression of each permission."""

    name: str
    configure: str
    write: str
    read: str


def permissions(stations: Sequence[str]) -> list[Permissions]:
    """Return the permissions of all users: workers, operations, Flower, and one user for each of `stations`."""
    work = "|".join(
        [
            *map(re.escape, (topology.RETURNS_QUEUE, topology.HOUSEKEEPING_QUEUE)),
            *map(re.escape, (topology.PRINT_ACTIONS_QUEUE, topology.DEAD_LETTER_QUEUE)),
            re.escape(topology.PRINTING_QUEUE_PREFIX) + ".*",
            re.escape(topology.REPLY_QUEUE_PREFIX) + ".*",
            # Celery declares these for quorum queues. bookdrop publishes no delayed message.
            "celery_delayed.*",
            _MONITORING,
        ]
    )
    work_queues = f"^({work})$"
    monitoring = f"^({_MONITORING})$"
    return [
        *(Permissions(name, work_queues, f"^({work}|{_ANONYMOUS})$", work_queues) for name in (WORKER, OPERATIONS)),
        Permissions(FLOWER, monitoring, monitoring, monitoring),
        *(
            Permissions(station_user(code), own, f"^{_ANONYMOUS}$", own)
            for code in stations
            for own in (f"^{re.escape(reply_queue(code))}$",)
        ),
    ]
