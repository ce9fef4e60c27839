# SPDX-License-Identifier: Apache-2.0
"""Administration of stations: add, disable, enable, rotate the key. The caller commits."""

import re
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from schemas.models import Branch, Printer, Station
from schemas.topology import CODE_PATTERN
from tasks.stations.keys import previous_key_at

MAX_CODE_LENGTH = 40


class RefusedStationError(Exception):
    """The change is not possible. The text contains the cause and the next step."""


def add_station(session: Session, now: datetime, *, code: str, branch: str, printer: str | None, key: str) -> None:
    """Register a station. Raises `RefusedStationError` for a code that is registered or invalid."""
    if len(code) > MAX_CODE_LENGTH or not re.fullmatch(CODE_PATTERN, code):
        raise RefusedStationError(f"{code!r} is not a station's code: use lower case letters, digits, single hyphens.")
    branch_id = session.execute(select(Branch.id).where(Branch.code == branch)).scalar_one_or_none()
    if branch_id is None:
        raise RefusedStationError(f"There is no branch {branch}. Add it: bookdrop add branches code={branch} ...")
    printer_id = None
    if printer is not None:
        printer_id = session.execute(select(Printer.id).where(Printer.code == printer)).scalar_one_or_none()
        if printer_id is None:
            raise RefusedStationError(f"There is no printer {printer}. 'bookdrop printers list' names them.")
    if session.execute(select(Station.id).where(Station.code == code)).first() is not None:
        raise RefusedStationError(
            f"Station {code} is registered already. A new key for it: bookdrop stations rotate-key {code}"
        )
    session.add(Station(code=code, branch_id=branch_id, printer_id=printer_id, key=key, key_since=now, active=True))
    session.flush()


def rotate_key(session: Session, now: datetime, code: str, key: str, overlap: timedelta) -> datetime | None:
    """Give a station a new key; return the end of the previous one's validity, `None` if it ended now.

    With `overlap` zero no other key is valid any more. Raises `RefusedStationError` for an overlap while another is
    open: the station may still have the key before the previous rotation.
    """
    station = lock_station(session, code)
    if overlap and previous_key_at(now, station.previous_key, station.previous_key_until) is not None:
        raise RefusedStationError(
            f"The previous key of {code} is valid until {format_utc(station.previous_key_until)}, and a station has two"
            " keys at most. Rotate after that; or with --now, which ends both."
        )
    until = now + overlap if overlap else None
    station.previous_key, station.previous_key_until = (station.key, until) if until is not None else (None, None)
    station.key, station.key_since = key, now
    return until


def set_active(session: Session, code: str, *, active: bool) -> bool:
    """Enable or disable a station; return True if that changed something. Raises `RefusedStationError`."""
    station = lock_station(session, code)
    changed = station.active is not active
    station.active = active
    return changed


def lock_station(session: Session, code: str) -> Station:
    """Read and lock the station with that code. Raises `RefusedStationError` when there is none."""
    station = session.scalars(select(Station).where(Station.code == code).with_for_update()).one_or_none()
    if station is None:
        raise RefusedStationError(f"There is no station {code}. 'bookdrop stations list' names them.")
    return station


def erase_expired_keys(session: Session, now: datetime) -> int:
    """Erase the previous keys whose overlap is over; return their number. May run twice and concurrently."""
    is_over = Station.previous_key_until <= now
    expired = session.execute(select(Station.id).where(is_over).with_for_update(skip_locked=True)).scalars().all()
    if expired:  # the condition again: another rotation may have begun an overlap
        session.execute(
            update(Station)
            .where(Station.id.in_(expired), is_over)
            .values(previous_key=None, previous_key_until=None)
            .execution_options(synchronize_session=False)
        )
    return len(expired)


def format_utc(moment: datetime | None) -> str:
    """A time for operators, to the minute."""
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"
