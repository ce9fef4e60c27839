# SPDX-License-Identifier: Apache-2.0
"""Times as commands print them: in this machine's time zone, with its offset."""

from datetime import datetime


def format_moment(moment: str | datetime | None, *, seconds: bool = False) -> str:
    """A time to the minute or the second, for example `2026-03-02 13:00+01:00`; `-` for none. JSON output has UTC."""
    if moment is None:
        return "-"
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return at.astimezone().isoformat(" ", "seconds" if seconds else "minutes")
