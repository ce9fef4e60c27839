# SPDX-License-Identifier: Apache-2.0
"""The context of tasks in tests: a policy, and publishers without a broker."""

from collections.abc import Sequence
from datetime import timedelta

from uuid6 import uuid7

from tasks.events.policy import LibraryPolicy
from tasks.ports import PendingMessage

POLICY = LibraryPolicy(new_id=uuid7, undo_window=timedelta(minutes=10), patron_card_pattern=r"P\d{6}")


class NullPublisher:
    """Publishes nothing: rows of the outbox stay there for the test to read."""

    def publish_outbox(self, entries: Sequence[PendingMessage]) -> int:
        """Leave every message to the sweep."""
        return 0


class RecordingPublisher:
    """Publishes every message to a list."""

    def __init__(self) -> None:
        self.messages: list[PendingMessage] = []

    def publish_outbox(self, entries: Sequence[PendingMessage]) -> int:
        """Store the messages."""
        self.messages += entries
        return len(entries)
