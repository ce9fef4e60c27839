# SPDX-License-Identifier: Apache-2.0
"""The status header that a station sends with an event."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas import station_status

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


def test_header_is_read_as_it_was_written():
    """Time of sending, attempt, number of held events and the oldest one's time are unchanged."""
    status = station_status.from_header(station_status.to_header(NOW, 2, 5, NOW - timedelta(hours=1)))

    assert status is not None
    assert (status.sent_at, status.attempt, status.held) == (NOW, 2, 5)
    assert status.held_since == NOW - timedelta(hours=1)


@pytest.mark.parametrize(
    "header", [None, "x", 7, [], {}, {"sent_at": "noon"}, {"sent_at": NOW.isoformat(), "held": -1}], ids=repr
)
def test_malformed_header_is_read_as_none(header):
    """A header of another form is ignored; it raises no error."""
    assert station_status.from_header(header) is None
