# SPDX-License-Identifier: Apache-2.0
"""Limits of RabbitMQ's queues, as policies of the virtual host.

Policies and not arguments of the declarations: RabbitMQ refuses to declare an existing queue with other arguments, so an
update would need the deletion of each queue. A policy applies to existing queues at once. On Redis the transport and the
publisher limit their lists (`workers.redis_transport.scripts`, `workers.publisher`).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas import topology

_MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Policy:
    """A policy of RabbitMQ for the queues whose names match `pattern`."""

    name: str
    pattern: str
    definition: Mapping[str, Any]

    @property
    def definition_json(self) -> str:
        """The definition as `rabbitmqctl set_policy` reads it."""
        return json.dumps(dict(self.definition))


def policies(
    *, dead_letters: int = 20_000, replies: int = 10_000, work: int = 1_000_000, size: int = 256 * _MIB
) -> list[Policy]:
    """The policies of all queues. The numbers are messages of one queue; `size`: bytes of one queue of letters or replies.

    The oldest dead letter or reply is removed first: a station sends an event without a reply again. A work queue rejects
    new messages instead, and the station keeps its event. It has 16 times the size.
    """
    work_queues = "|".join(
        (
            *map(re.escape, (topology.RETURNS_QUEUE, topology.HOUSEKEEPING_QUEUE, topology.PRINT_ACTIONS_QUEUE)),
            re.escape(topology.PRINTING_QUEUE_PREFIX) + ".*",
        )
    )
    return [
        Policy(
            "bookdrop-dead-letters",
            f"^{re.escape(topology.DEAD_LETTER_QUEUE)}$",
            _limit(dead_letters, size, "drop-head"),
        ),
        Policy("bookdrop-replies", f"^{re.escape(topology.REPLY_QUEUE_PREFIX)}", _limit(replies, size, "drop-head")),
        Policy("bookdrop-work", f"^({work_queues})$", _limit(work, 16 * size, "reject-publish")),
    ]


def _limit(length: int, size: int, overflow: str) -> dict[str, Any]:
    return {"max-length": length, "max-length-bytes": size, "overflow": overflow}
