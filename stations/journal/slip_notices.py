# SPDX-License-Identifier: Apache-2.0
"""Slip notices of an event: which ones are new, and which are copies or out of date. Pure.

A copy of a signed notice has a valid signature. A sender that can read the reply queue, or a broker that redelivers, must
not bring back an earlier state of a slip.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from schemas.replies import SlipNotice

MAX_SEEN: Final = 50
"""Notices of one event that are recognised when they come again. Older ones are out of date as well."""
CLOCK_TOLERANCE: Final = timedelta(minutes=1)
"""Difference between the clocks of two workers, for which a notice is still shown after a newer one."""


@dataclass(frozen=True)
class SeenNotices:
    """The notices that a station has received about one event."""

    latest_at: datetime | None = None
    """Time of the newest one."""
    digests: tuple[str, ...] = ()
    """SHA-256 of each, oldest first."""

    def add(self, notice: SlipNotice, now: datetime) -> "SeenNotices | None":
        """Return the notices with `notice`; `None` for a copy, or for one that is older than the newest.

        A notice from the future counts as one of `now`: it must not hide those that follow.
        """
        digest = _digest(notice)
        if digest in self.digests:
            return None
        at = min(notice.at, now)
        if self.latest_at is not None and notice.at < self.latest_at - CLOCK_TOLERANCE:
            return None
        latest = at if self.latest_at is None else max(at, self.latest_at)
        return SeenNotices(latest, (*self.digests, digest)[-MAX_SEEN:])

    def to_text(self) -> str:
        """The JSON that the journal stores."""
        return json.dumps([self.latest_at and self.latest_at.isoformat(), *self.digests])


def read_seen(text: str | None) -> SeenNotices:
    """The notices of `SeenNotices.to_text`; none for an event without notices."""
    if text is None:
        return SeenNotices()
    latest, *digests = json.loads(text)
    return SeenNotices(None if latest is None else datetime.fromisoformat(latest), tuple(digests))


def _digest(notice: SlipNotice) -> str:
    """Digest of the content of a notice, without its signatures: after a rotation of the key they differ."""
    return hashlib.sha256(
        json.dumps([str(notice.job_id), notice.state, notice.message, notice.at.isoformat()]).encode()
    ).hexdigest()
