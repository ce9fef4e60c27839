# SPDX-License-Identifier: Apache-2.0
"""Time stored in an event id."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid6 import uuid7

from schemas.identifiers import uuid7_time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def uuid7_of(milliseconds, rest=0):
    """A UUIDv7 of that time, all other bits taken from `rest`."""
    others = rest & ~(0xF << 76) & ~(0x3 << 62) & ((1 << 80) - 1)
    return UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | others)


def test_example_of_the_rfc():
    """RFC 9562, appendix A.6, gives this id and its time."""
    assert uuid7_time(UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")) == datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)


def test_generated_id_holds_the_current_time():
    """The library that generates event ids and this function agree."""
    before = datetime.now(UTC)
    moment = uuid7_time(uuid7())
    after = datetime.now(UTC)

    assert moment is not None
    assert before - timedelta(milliseconds=1) < moment <= after


@given(
    st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)), st.integers(min_value=0, max_value=2**80 - 1)
)
def test_every_time_that_a_datetime_holds_is_returned(moment, rest):
    """The result is the generation time to the millisecond, whatever the random bits are."""
    milliseconds = (moment - EPOCH) // timedelta(milliseconds=1)

    assert uuid7_time(uuid7_of(milliseconds, rest)) == EPOCH + timedelta(milliseconds=milliseconds)


@given(st.uuids(allow_nil=True) | st.integers(min_value=0, max_value=2**128 - 1).map(lambda number: UUID(int=number)))
def test_no_id_raises(event_id):
    """An id comes from outside: the result is an aware time for a UUIDv7, and `None` for any other UUID."""
    moment = uuid7_time(event_id)

    assert moment is None or (event_id.version == 7 and moment.tzinfo is UTC)


@pytest.mark.parametrize(
    "event_id",
    [uuid4(), UUID(int=0), uuid7_of(2**48 - 1), uuid7_of(253_402_300_800_000)],
    ids=["version 4", "nil", "year 10889", "year 10000"],
)
def test_id_without_a_usable_time_returns_none(event_id):
    """Another version holds no such time, and a time after the year 9999 has no `datetime`."""
    assert uuid7_time(event_id) is None
