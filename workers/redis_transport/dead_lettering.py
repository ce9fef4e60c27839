# SPDX-License-Identifier: Apache-2.0
"""Dead letters of a channel: their form, and how a message that cannot be delivered becomes one."""

import json
from base64 import b64encode
from typing import Any, Final
from uuid import uuid4

import structlog

from workers.redis_transport import scripts

log = structlog.get_logger()

MAX_KEPT: Final = 65_536
"""Bytes of an unreadable message that its dead letter keeps."""

_Mixin: Any = object
"""`Any` to the type checker: kombu's stubs cover the public API only."""


class DeadLettering(_Mixin):
    """The part of a channel that writes dead letters."""

    @property
    def dead_letters(self) -> str:
        """The queue for messages that cannot be delivered."""
        return self.deadletter_queue or "dead-letter"

    def make_dead_letter(self, message: dict[str, Any], reason: str, queue: str, **headers: Any) -> dict[str, Any]:
        """Return a dead letter: `message` unchanged, with `reason`, `queue`, and `headers` among its headers."""
        return {
            **message,
            "headers": {
                **(message.get("headers") or {}),
                "x-quarantine-reason": reason,
                "x-quarantine-queue": queue,
                **headers,
            },
            "properties": {
                **message["properties"],
                "delivery_info": {"exchange": "", "routing_key": self.dead_letters},
            },
        }

    def wrap_as_dead_letter(self, raw: bytes | str, reason: str, detail: str = "") -> dict[str, Any]:
        """Return a dead letter with `raw` as its body, in the form that `TAKE` writes."""
        content = raw.encode() if isinstance(raw, str) else raw
        marks: dict[str, Any] = {"x-quarantine-reason": reason, "x-quarantine-queue": self._queue}
        if len(content) > MAX_KEPT:
            marks["x-quarantine-size"] = len(content)
        return {
            "body": b64encode(content[:MAX_KEPT]).decode(),
            "content-type": "application/octet-stream",
            "content-encoding": "binary",
            "headers": marks | ({"x-quarantine-detail": detail} if detail else {}),
            "properties": {
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
                "delivery_mode": 2,
                "priority": 0,
                "delivery_info": {"exchange": "", "routing_key": self.dead_letters},
            },
        }

    def publish_dead_letter(self, letter: dict[str, Any]) -> None:
        """Append `letter` to the dead-letter queue."""
        key = self.global_keyprefix + self.dead_letters
        pipe = self.plain_client().pipeline()
        pipe.lpush(key, json.dumps(letter))
        pipe.ltrim(key, 0, scripts.MAX_DEAD_LETTERS - 1)
        pipe.execute()

    def dead_letter_lost(self, queue: str, tag: str, losses: int, message: dict[str, Any]) -> None:
        """Make a dead letter of a message that more consumers died with than the limit allows."""
        letter = self.make_dead_letter(message, "lost_too_often", queue, **{"x-quarantine-losses": losses})
        self.qos.move_to_dead_letters(tag, letter)
        task_id = (message.get("headers") or {}).get("id")
        log.error(
            "message_quarantined", reason="lost_too_often", queue=self.dead_letters, task_id=task_id, count=losses
        )

    def dead_letter_malformed(self, tag: str, raw: bytes, reason: str, *, with_ack: bool) -> None:
        """Make a dead letter of the entry `raw` that cannot be read. `with_ack`: the entry is recorded as unacknowledged."""
        letter = self.wrap_as_dead_letter(raw, reason)
        if with_ack:
            self.qos.move_to_dead_letters(tag, letter)
        else:
            self.publish_dead_letter(letter)
        log.error("message_quarantined", reason=reason, queue=self.dead_letters)
