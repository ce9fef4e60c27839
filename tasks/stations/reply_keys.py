# SPDX-License-Identifier: Apache-2.0
"""The keys that sign messages to a station which reply to no event of the same transaction."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from schemas.models import Station
from schemas.reply_signature import ReplyKeys
from tasks.stations.keys import previous_key_at


def load_reply_keys(session: Session, station: str, now: datetime) -> ReplyKeys | None:
    """The keys of a registered station that are valid `now`, the present one first."""
    row = session.execute(
        select(Station.key, Station.previous_key, Station.previous_key_until).where(Station.code == station)
    ).one_or_none()
    if row is None:
        return None
    return ReplyKeys(station, row.key, previous_key_at(now, row.previous_key, row.previous_key_until))
