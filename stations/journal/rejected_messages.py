# SPDX-License-Identifier: Apache-2.0
"""The number of messages from the reply queue that the station ignored, because they are not signed for it."""

from dataclasses import dataclass
from datetime import datetime

from stations.journal.events import Journal, to_text


@dataclass(frozen=True)
class RejectedMessages:
    """Messages that were ignored since the journal exists."""

    count: int = 0
    last_at: datetime | None = None
    last_defect: str | None = None
    """Defect of the last one, a value of `schemas.reply_signature.ReplyDefect`."""


def add_rejected(journal: Journal, count: int, defect: str, now: datetime) -> None:
    """Add to the number of ignored messages. Raises `JournalError`."""
    with journal.writing("Ignored messages were not counted") as connection:
        connection.execute(
            "UPDATE station SET rejected_messages = rejected_messages + ?, rejected_at = ?, rejected_defect = ?",
            (count, to_text(now), defect),
        )


def rejected_messages(journal: Journal) -> RejectedMessages:
    """The number of ignored messages, with time and defect of the last one. Raises `JournalError`."""
    with journal.reading() as connection:
        count, at, defect = connection.execute(
            "SELECT rejected_messages, rejected_at, rejected_defect FROM station"
        ).fetchone()
    return RejectedMessages(count, None if at is None else datetime.fromisoformat(at), defect)
