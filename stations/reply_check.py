# SPDX-License-Identifier: Apache-2.0
"""Read the messages of a reply queue, and ignore those that are not signed for this station.

Any program with the right to write to the reply queue may have sent them.
"""

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple

from pydantic import Field, TypeAdapter

from schemas.circulation_events import ActionReply, Reply
from schemas.replies import ReturnReply, SlipNotice
from schemas.reply_signature import ReplyDefect, reply_defect
from stations.journal.events import Journal
from stations.journal.rejected_messages import add_rejected

MAX_MESSAGE_CHARACTERS: Final = 1_048_576
"""Longest message that is parsed. A reply with many choices has a hundredth."""
COUNT_INTERVAL_SECONDS: Final = 1.0
"""Interval between two writes of the number of ignored messages: a flood of messages costs no write each."""

_MESSAGE: Final[TypeAdapter[Reply | SlipNotice]] = TypeAdapter(
    Annotated[ReturnReply | ActionReply | SlipNotice, Field(discriminator="type")]
)
"""Every message that a reply queue carries."""


class ReceivedMessage(NamedTuple):
    """A message that the station may use."""

    message: Reply | SlipNotice
    body: str
    """Its JSON."""


class ReplyCheck:
    """Reads messages for `station`. Not thread-safe."""

    def __init__(
        self, journal: Journal, station: str, key: str, *, requires_signatures: bool, now: Callable[[], datetime]
    ) -> None:
        self._journal = journal
        self._station = station
        self._key = key
        self._requires_signatures = requires_signatures
        self._now = now
        self._uncounted = 0
        self._last_defect = ReplyDefect.UNREADABLE
        self._counted_at = float("-inf")

    def read(self, body: str) -> ReceivedMessage | None:
        """The message in `body`; `None` if it cannot be read, or must be signed and is not signed for this station."""
        if not self._requires_signatures:
            try:
                return ReceivedMessage(_MESSAGE.validate_json(body), body)
            except ValueError:
                return None
        result = self._verified(body)
        if isinstance(result, ReplyDefect):
            self._uncounted += 1
            self._last_defect = result
            return None
        return result

    def count(self, *, at_once: bool = False) -> None:
        """Write the number of ignored messages to the journal, once in a while. Raises `JournalError`."""
        clock = time.monotonic()
        if self._uncounted and (at_once or clock - self._counted_at >= COUNT_INTERVAL_SECONDS):
            add_rejected(self._journal, self._uncounted, self._last_defect.value, self._now())
            self._uncounted, self._counted_at = 0, clock

    def _verified(self, body: str) -> ReceivedMessage | ReplyDefect:
        """The message, or its defect. One parser reads it: another one might take another of two equal names."""
        if len(body) > MAX_MESSAGE_CHARACTERS:
            return ReplyDefect.UNREADABLE
        try:
            content: Any = json.loads(body)
            if not isinstance(content, dict):
                return ReplyDefect.UNREADABLE
            defect = reply_defect(content, self._station, self._key)
            if defect is not None:
                return defect
            return ReceivedMessage(_MESSAGE.validate_python(content), json.dumps(content, ensure_ascii=False))
        except (ValueError, RecursionError):
            return ReplyDefect.UNREADABLE
