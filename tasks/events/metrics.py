# SPDX-License-Identifier: Apache-2.0
"""Record metrics of processed events: durations, outcomes, and the status of their stations."""

from datetime import datetime

from schemas import station_status
from schemas.identifiers import uuid7_time
from schemas.station_status import StationStatus
from tasks.context import Context
from tasks.events.model import ProcessedBatch
from tasks.metrics import definitions
from tasks.metrics.recorder import ReportedHeartbeat


def record(batch: ProcessedBatch, context: Context, began: datetime) -> None:
    """Record a batch whose transaction `began` then and whose replies the broker has."""
    metrics, now = context.metrics, context.now()
    metrics.observe(definitions.TRANSACTION, (now - began).total_seconds())
    for processed in batch.processed:
        event, reply = processed.event.event, processed.reply
        status = station_status.from_header(processed.event.received.station_status)
        made_at = uuid7_time(event.event_id)
        sent_at = status.sent_at if status is not None else made_at
        if sent_at is not None:
            metrics.observe(definitions.QUEUE_WAIT, (began - sent_at).total_seconds())
        metrics.record_heartbeat(event.station, _heartbeat(status, now))
        if reply is None:
            metrics.count(definitions.DUPLICATES)
            continue
        metrics.count(definitions.REPLIES, reply.outcome.value)
        if made_at is not None:
            is_retry = status is not None and status.attempt > 1
            metrics.observe(definitions.SCAN_TO_REPLY, (now - made_at).total_seconds(), "again" if is_retry else "once")
    for rejected in batch.rejected:
        metrics.count(definitions.QUARANTINED, rejected.reason.value)


def _heartbeat(status: StationStatus | None, now: datetime) -> ReportedHeartbeat:
    if status is None:
        return ReportedHeartbeat(now, 0, None, now)
    return ReportedHeartbeat(now, status.held, status.held_since, status.sent_at)
