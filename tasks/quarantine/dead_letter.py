# SPDX-License-Identifier: Apache-2.0
"""A dead letter as a row of the quarantine: its content, the queue it was for, the reason it was given up. Pure."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from schemas import task_message, topology
from schemas.external_text import one_line
from schemas.reasons import DeadLetterReason
from tasks.ports import REDELIVERY_HEADERS, DeadLetter
from tasks.quarantine.rejection import MAX_QUARANTINED_CHARS, body_digest, event_id_of, station_of

DEATH_HEADERS: Final = ("x-quarantine-", "x-death", "x-first-death-", "x-last-death-", *REDELIVERY_HEADERS)
"""Prefixes of the headers that a message receives when it is dead-lettered; a requeued message has none of them."""

MAX_ENVELOPE_CHARS: Final = 65_536
"""Characters of an envelope that the quarantine stores. A valid one has some hundred."""

WORK_QUEUES: Final = (topology.RETURNS_QUEUE, topology.HOUSEKEEPING_QUEUE, topology.PRINT_ACTIONS_QUEUE)


def is_work_queue(queue: str) -> bool:
    """True for a queue to which a message may be requeued. The name comes from outside."""
    return queue in WORK_QUEUES or queue.startswith(topology.PRINTING_QUEUE_PREFIX)


def quarantine_row(letter: DeadLetter) -> dict[str, Any]:
    """The letter as columns of the quarantine table."""
    headers = letter.envelope.headers
    queue = _queue_of(letter)
    reason, detail = _reason_of(letter, queue)
    text, encoding = _encode_body(letter.body)
    body, envelope = text[:MAX_QUARANTINED_CHARS], _envelope_text(letter)
    is_cut = "x-quarantine-size" in headers
    payload = _argument(letter.body)
    event_id = event_id_of(payload)
    task_id = headers.get("id") if isinstance(headers.get("id"), str) else letter.envelope.correlation_id
    task = headers.get("task")
    return {
        "queue": _column_text(queue, 200) or topology.DEAD_LETTER_QUEUE,
        "task": _column_text(task, 200),
        "reason": reason,
        "detail": _column_text(detail, 1000) or "",
        "station": _column_text(station_of(payload), 100),
        "event_id": _column_text(str(event_id) if event_id else task_id, 100),
        "reply_to": _column_text(letter.envelope.reply_to, 100),
        "body": body,
        "whole": len(text) <= MAX_QUARANTINED_CHARS and len(envelope) <= MAX_ENVELOPE_CHARS and not is_cut,
        "encoding": encoding,
        "envelope": envelope if len(envelope) <= MAX_ENVELOPE_CHARS else None,
        "letter": letter.digest,
        "size": len(body) + len(envelope),
        "digest": body_digest(body),
    }


def _envelope_text(letter: DeadLetter) -> str:
    """The envelope as JSON, without the headers of a dead letter."""
    envelope = letter.envelope
    return json.dumps(
        {
            "headers": {name: value for name, value in envelope.headers.items() if not name.startswith(DEATH_HEADERS)},
            "content_type": envelope.content_type,
            "content_encoding": envelope.content_encoding,
            "correlation_id": envelope.correlation_id,
            "reply_to": envelope.reply_to,
        },
        default=str,
    )


def decode_body(text: str, encoding: str) -> bytes:
    """The original body, from the text and the encoding that are stored."""
    return base64.b64decode(text) if encoding == "base64" else text.encode()


def _encode_body(body: bytes) -> tuple[str, str]:
    """Text and encoding to store: base64 for what is not UTF-8, or holds a NUL, which PostgreSQL refuses in text."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"
    return (base64.b64encode(body).decode(), "base64") if "\x00" in text else (text, "text")


def _queue_of(letter: DeadLetter) -> str | None:
    named = letter.envelope.headers.get("x-quarantine-queue")
    if isinstance(named, str):
        return named
    death = _death(letter)
    return str(death["queue"]) if "queue" in death else letter.routing_key


def _reason_of(letter: DeadLetter, queue: str | None) -> tuple[DeadLetterReason, str]:
    """The reason code, and a detail for the operator."""
    headers = letter.envelope.headers
    marked, marked_detail = headers.get("x-quarantine-reason"), headers.get("x-quarantine-detail")
    death = str(_death(letter).get("reason", ""))
    detail = marked_detail if isinstance(marked_detail, str) else ""
    if marked == DeadLetterReason.LOST_TOO_OFTEN or death == "delivery_limit":
        return DeadLetterReason.LOST_TOO_OFTEN, "every worker that received it died or lost it"
    for reason in (DeadLetterReason.HANDOVER_FAILED, DeadLetterReason.NOT_RESTORED):
        if marked == reason:
            return reason, detail
    if isinstance(marked, str) and marked != DeadLetterReason.REJECTED:
        return DeadLetterReason.MALFORMED, marked
    detail = detail or _defect(letter, queue) or death
    task = headers.get("task")
    if not isinstance(task, str) or not isinstance(_call(letter.body), list):
        return DeadLetterReason.MALFORMED, detail
    if task not in topology.ALL_TASKS:
        return DeadLetterReason.UNKNOWN_TASK, task
    return (DeadLetterReason.REJECTED if marked or death else DeadLetterReason.UNROUTABLE), detail


def _defect(letter: DeadLetter, queue: str | None) -> str | None:
    """The defect for which a worker rejected the letter, determined again: RabbitMQ stores no reason with it."""
    envelope = letter.envelope
    headers = {name: value for name, value in envelope.headers.items() if not name.startswith(DEATH_HEADERS)}
    properties = {name: getattr(envelope, name) for name in task_message.PROPERTIES}
    defect = task_message.envelope_defect(queue or "", properties, headers, letter.body)
    if defect is not None:
        return defect
    return task_message.call_defect(queue or "", headers["id"], _call(letter.body))


def _death(letter: DeadLetter) -> Mapping[str, Any]:
    """RabbitMQ's record of the last time the message was dead-lettered; empty when there is none."""
    deaths = letter.envelope.headers.get("x-death")
    return deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}


def _call(body: bytes) -> object:
    """The body of a task message; `None` for a body that is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _argument(body: bytes) -> object:
    """The first argument of a task message; `None` when the body is not one."""
    call: Any = _call(body)
    try:
        return call[0][0]
    except (LookupError, TypeError):
        return None


def _column_text(text: object, length: int) -> str | None:
    return one_line(text, length) or None if isinstance(text, str) else None
