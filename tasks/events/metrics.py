# SPDX-License-Identifier: Apache-2.0
"""What monitoring wants to know of answered events: how long they took, how they ended, and how their desk does."""

from datetime import datetime
from typing import Any

from schemas import station_status
from schemas.identifiers import uuid7_time
from schemas.station_status import StationStatus
from tasks.context import Context
from tasks.events.results import Batch
from tasks.metrics import definitions
from tasks.metrics.recorder import ReportedHeartbeat


def measure(batch: Batch[Any], here: Context, began: datetime) -> None:
    """Note what became of the events of a transaction that `began` then, and whose answers were given to the broker."""
    tally, now = here.metrics, here.now()
    tally.observe(definitions.TRANSACTION, (now - began).total_seconds())
    for answered in batch.answered:
        event, reply = answered.event.event, answered.reply
        word = station_status.read(answered.event.received.station_status)
        made_at = uuid7_time(event.event_id)
        sent_at = word.sent_at if word is not None else made_at
        if sent_at is not None:
            tally.observe(definitions.QUEUE_WAIT, (began - sent_at).total_seconds())
        tally.record_heartbeat(event.station, _seen(word, now))
        if reply is None:
            tally.count(definitions.DUPLICATES)
            continue
        tally.count(definitions.REPLIES, reply.outcome.value)
        if made_at is not None:
            again = word is not None and word.attempt > 1
            tally.observe(definitions.SCAN_TO_REPLY, (now - made_at).total_seconds(), "again" if again else "once")
    for distrusted in batch.distrusted:
        tally.count(definitions.QUARANTINED, distrusted.reason)


def _seen(word: StationStatus | None, now: datetime) -> ReportedHeartbeat:
    return (
        ReportedHeartbeat(now, 0, None, now)
        if word is None
        else ReportedHeartbeat(now, word.held, word.held_since, word.sent_at)
    )
