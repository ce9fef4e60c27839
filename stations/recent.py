# SPDX-License-Identifier: Apache-2.0
"""Which of a desk's own scans can be meant by "the last one"."""

from typing import Final
from uuid import UUID

from schemas.circulation_events import read_reply
from stations.journal.events import Journal

_LOOKED_THROUGH: Final = 50


def last_returned(journal: Journal) -> UUID | None:
    """The newest event of this desk that returned something and that it has not asked to undo; `None` if none did."""
    asked: set[str] = set()
    for entry in reversed(journal.recent(_LOOKED_THROUGH)):
        if entry.reply is None:
            continue
        reply = read_reply(entry.reply)
        if reply.reason.startswith("undone"):
            asked.add(entry.subject)
        elif reply.outcome == "returned" and str(reply.event_id) not in asked:
            return reply.event_id
    return None
