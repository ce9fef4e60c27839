# SPDX-License-Identifier: Apache-2.0
"""Named formats of dates in another system's file. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

ISO: Final = "iso"
"""Name of the format of ISO 8601, beside others."""

_DIRECTIVE: Final = re.compile(r"%(.?)")
_PROBE: Final = datetime(2001, 2, 3, 16, 5, 6, 7, tzinfo=UTC)
"""A time that a format must keep."""


@dataclass(frozen=True)
class DateFormat:
    """Formats of a column, as those of `datetime.strptime`; the first that fits is used."""

    formats: tuple[str, ...]

    def parse(self, text: str) -> date | datetime:
        """A date if the format has no time of day. Raises `ValueError` with the formats when none fits."""
        for form in self.formats:
            try:
                if form == ISO:
                    return parse_iso(text)
                moment = datetime.strptime(text, form)  # noqa: DTZ007 - a zone, if any, is that of the format
            except ValueError:
                continue
            return moment if _has_time(form) else moment.date()
        raise ValueError(f"{text[:40]!r} is not a date in the form {' or '.join(self.formats)}")


def parse_iso(text: str) -> date | datetime:
    """Parse ISO 8601: a date, or a date with a time. Raises `ValueError`."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return datetime.fromisoformat(text)


def parse_formats(value: object) -> DateFormat:
    """The format in a mapping or an option: a text, or several. Raises `ValueError` for one that names no date."""
    formats: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    for form in formats:
        if not isinstance(form, str) or (form != ISO and not _names_a_date(form)):
            raise ValueError(f"{form!r} is not a date format with day, month and year, for example '%d/%m/%Y'")
    if not formats:
        raise ValueError("names no date format")
    return DateFormat(tuple(str(form) for form in formats))


def _names_a_date(form: str) -> bool:
    try:
        return datetime.strptime(_PROBE.strftime(form), form).date() == _PROBE.date()  # noqa: DTZ007
    except (ValueError, re.error):
        return False


def _has_time(form: str) -> bool:
    return any(directive in "HIMSfXc" for directive in _DIRECTIVE.findall(form) if directive)
