# SPDX-License-Identifier: Apache-2.0
"""What could not be believed is kept with its reason, and the station is told where it can be told."""

import json
from collections.abc import Sequence

from sqlalchemy import insert

from schemas.models import QuarantinedMessage, table
from schemas.replies import Outcome, ReturnReply
from schemas.topology import RETURNS_QUEUE, is_reply_queue
from tasks.desk.reception import REFUSALS, Distrusted
from tasks.unit_of_work import UnitOfWork

LONGEST_KEPT = 65_536
"""How much of a message is kept, in characters."""


def keep(distrusted: Sequence[Distrusted], uow: UnitOfWork) -> None:
    """Write `distrusted` to the quarantine table, and promise a refusal to each station that can be told."""
    if not distrusted:
        return
    uow.session.execute(
        insert(table(QuarantinedMessage)),
        [
            {
                "received_at": uow.now,
                "queue": RETURNS_QUEUE,
                "reason": each.reason,
                "detail": each.detail,
                "station": (each.station or "").replace("\x00", "") or None,
                "event_id": None if each.event_id is None else str(each.event_id),
                "reply_to": (each.received.reply_to or "")[:100].replace("\x00", "") or None,
                "body": json.dumps(each.received.payload, default=repr)[:LONGEST_KEPT],
            }
            for each in distrusted
        ],
    )
    for each in distrusted:
        if each.event_id is not None and each.received.reply_to and is_reply_queue(each.received.reply_to):
            refusal = ReturnReply(
                event_id=each.event_id,
                outcome=Outcome.REFUSED,
                reason=each.reason,
                message=REFUSALS[each.reason],
                next_step="Tell the person who runs the stations. It was kept.",
            )
            uow.say(each.received.reply_to, refusal.model_dump_json(exclude_none=True), event_id=each.event_id)
