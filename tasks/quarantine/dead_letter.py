# SPDX-License-Identifier: Apache-2.0
"""A dead letter: what the broker gave up on, why, and where it came from. Pure."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from schemas import topology
from tasks.events.validation import LONGEST_KEPT, event_id_of, station_of

REDELIVERIES: Final = ("x-delivery-count", "x-acquired-count")
"""Headers that RabbitMQ changes each time it delivers."""
OF_THE_DEAD: Final = ("x-quarantine-", "x-death", "x-first-death-", "x-last-death-", *REDELIVERIES)
"""Beginnings of headers that a message gets when it is given up."""

WORK_QUEUES: Final = (topology.RETURNS_QUEUE, topology.HOUSEKEEPING_QUEUE, topology.PRINT_ACTIONS_QUEUE)


@dataclass(frozen=True)
class Envelope:
    """What stands around a message's body."""

    headers: Mapping[str, Any]
    content_type: str | None = None
    content_encoding: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None


@dataclass(frozen=True)
class Letter:
    """One dead letter as the broker has it."""

    body: bytes
    envelope: Envelope
    handle: Any
    """By which it is let go of."""
    routing_key: str | None = None
    """The queue that it was meant for, where the broker tells."""
    mark: bytes = b""
    """Tells it from another letter of the same content, where the broker's messages have such a thing."""

    @property
    def digest(self) -> str:
        """The same letter has the same, however often it is looked at."""
        headers = {name: value for name, value in self.envelope.headers.items() if name not in REDELIVERIES}
        around = json.dumps(asdict(self.envelope) | {"headers": headers}, sort_keys=True, default=str)
        return hashlib.sha256(b"\0".join((self.mark, around.encode(), self.body))).hexdigest()


@dataclass(frozen=True)
class Outgoing:
    """A message to be put back on its queue."""

    queue: str
    body: bytes
    envelope: Envelope


class DeadLetters(Protocol):
    """The broker's dead letters, while one looks at them."""

    def look(self, limit: int) -> Sequence[Letter]:
        """The oldest letters, at most `limit`; they stay where they are. Raises what the transport raises."""

    def forget(self, letters: Sequence[Letter]) -> None:
        """Let go of letters that were looked at."""

    def put_back(self, message: Outgoing) -> None:
        """Publish, and return when the broker has it."""


OpenLetters = Callable[[], AbstractContextManager[DeadLetters]]


def is_work_queue(queue: str) -> bool:
    """Whether messages may be put back there: the name came from outside."""
    return queue in WORK_QUEUES or queue.startswith(topology.PRINTING_QUEUE_PREFIX)


def row_of(letter: Letter) -> dict[str, Any]:
    """The letter as columns of the quarantine table."""
    headers = letter.envelope.headers
    queue = _queue_of(letter)
    reason, detail = _reason_of(letter)
    text, encoding = _storable(letter.body)
    payload = _argument(letter.body)
    event_id = event_id_of(payload)
    task_id = headers.get("id") if isinstance(headers.get("id"), str) else letter.envelope.correlation_id
    task = headers.get("task")
    return {
        "queue": _clean(queue, 200) or topology.DEAD_LETTER_QUEUE,
        "task": _clean(task, 200),
        "reason": reason,
        "detail": _clean(detail, 1000) or "",
        "station": _clean(station_of(payload), 100),
        "event_id": _clean(str(event_id) if event_id else task_id, 100),
        "reply_to": _clean(letter.envelope.reply_to, 100),
        "body": text[:LONGEST_KEPT],
        "whole": len(text) <= LONGEST_KEPT,
        "encoding": encoding,
        "envelope": json.dumps(
            {
                "headers": {name: value for name, value in headers.items() if not name.startswith(OF_THE_DEAD)},
                "content_type": letter.envelope.content_type,
                "content_encoding": letter.envelope.content_encoding,
                "correlation_id": letter.envelope.correlation_id,
                "reply_to": letter.envelope.reply_to,
            },
            default=str,
        ),
        "letter": letter.digest,
    }


def body_of(text: str, encoding: str) -> bytes:
    """A body as it was, from how it is stored."""
    return base64.b64decode(text) if encoding == "base64" else text.encode()


def _storable(body: bytes) -> tuple[str, str]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"
    return (base64.b64encode(body).decode(), "base64") if "\x00" in text else (text, "text")


def _queue_of(letter: Letter) -> str | None:
    named = letter.envelope.headers.get("x-quarantine-queue")
    if isinstance(named, str):
        return named
    death = _death(letter)
    return str(death["queue"]) if "queue" in death else letter.routing_key


def _reason_of(letter: Letter) -> tuple[str, str]:
    """The reason for the list, and more about it."""
    marked = letter.envelope.headers.get("x-quarantine-reason")
    death = str(_death(letter).get("reason", ""))
    if marked == "lost_too_often" or death == "delivery_limit":
        return "lost_too_often", "every worker that took it died or lost it"
    if isinstance(marked, str) and marked != "rejected":
        return "malformed", marked
    try:
        call = json.loads(letter.body)
    except (ValueError, RecursionError):
        return "malformed", "not_json"
    task = letter.envelope.headers.get("task")
    if not isinstance(task, str) or not isinstance(call, list):
        return "malformed", "no task message"
    if task not in topology.ALL_TASKS:
        return "unknown_task", task
    return ("rejected", death or "") if marked or death else ("unroutable", "")


def _death(letter: Letter) -> Mapping[str, Any]:
    deaths = letter.envelope.headers.get("x-death")
    return deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}


def _argument(body: bytes) -> object:
    """The one argument of a task message, if the body is one."""
    try:
        call = json.loads(body)
        return call[0][0]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None


def _clean(text: object, longest: int) -> str | None:
    return text.replace("\x00", "")[:longest] or None if isinstance(text, str) else None
