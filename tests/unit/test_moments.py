# SPDX-License-Identifier: Apache-2.0
"""Times in the output of commands."""

import time
from datetime import UTC, datetime

import pytest

from workers.commands.moments import format_moment


@pytest.fixture(params=[("UTC", "+00:00"), ("Europe/Berlin", "+01:00"), ("America/St_Johns", "-03:30")])
def zone(request, monkeypatch):
    """The time zone of the machine, and its offset in winter."""
    name, offset = request.param
    monkeypatch.setenv("TZ", name)
    time.tzset()
    yield offset
    monkeypatch.undo()
    time.tzset()


def test_time_is_local_and_names_its_offset(zone):
    """The same instant is shown in the machine's time zone, whether it is a time or the text of one."""
    moment = datetime(2026, 3, 2, 12, 0, 30, tzinfo=UTC)

    for given in (moment, moment.isoformat()):
        shown = format_moment(given)
        assert shown.endswith(zone)
        assert datetime.fromisoformat(shown) == moment.replace(second=0)
        assert datetime.fromisoformat(format_moment(given, seconds=True)) == moment


def test_missing_time_is_a_dash():
    """`None` is shown as a dash."""
    assert format_moment(None) == "-"
