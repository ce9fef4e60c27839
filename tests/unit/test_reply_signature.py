# SPDX-License-Identifier: Apache-2.0
"""Signatures of the messages to a station: the bytes that they cover, and the station and the event that they bind."""

import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from schemas.reply_signature import SIGNATURE_FIELDS, ReplyDefect, ReplyKeys, canonical_reply, reply_defect, sign_reply

KEY, OTHER = "a-key-of-the-tests", "another-key-of-the-tests"
STATION = "main-desk-1"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda name: name not in {*SIGNATURE_FIELDS, "station"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
MESSAGES = st.dictionaries(NAMES, VALUES, max_size=4)


def signed(message, key=KEY, second_key=None, station=STATION):
    """The message as its station receives it."""
    return json.loads(sign_reply(json.dumps(message), ReplyKeys(station, key, second_key)))


@given(message=MESSAGES)
def test_signed_bytes_are_canonical_json(message):
    """The bytes are those of RFC 8785, whichever library writes them."""
    assert canonical_reply(message) == rfc8785.dumps(message)


@given(message=MESSAGES)
def test_signed_message_is_accepted_in_any_encoding(message):
    """The message with its signature is accepted, also after another JSON encoding; its fields are unchanged."""
    received = json.loads(json.dumps(dict(reversed(signed(message).items())), indent=3))

    assert reply_defect(received, STATION, KEY) is None
    assert {**received, **message} == received


@given(message=MESSAGES, name=NAMES, value=VALUES)
def test_changed_field_is_refused(message, name, value):
    """A field that is changed or added after signing, known or unknown, makes the message invalid."""
    received = signed(message)
    changed = {**received, name: value}

    is_equal = canonical_reply(changed) == canonical_reply(received)

    assert reply_defect(changed, STATION, KEY) == (None if is_equal else ReplyDefect.BAD_SIGNATURE)


@given(message=MESSAGES.filter(bool), data=st.data())
def test_removed_field_is_refused(message, data):
    """A field that is removed after signing makes the message invalid."""
    received = signed(message)

    del received[data.draw(st.sampled_from(sorted(message)))]

    assert reply_defect(received, STATION, KEY) is ReplyDefect.BAD_SIGNATURE


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_both_keys_of_an_overlap_accept_a_message(key):
    """While a rotation overlaps, a station with either key accepts the message."""
    assert reply_defect(signed({"type": "x"}, KEY, OTHER), STATION, key) is None


@pytest.mark.parametrize(
    ("change", "defect"),
    [
        ({"signature": None}, ReplyDefect.UNSIGNED),
        ({"signature": 1}, ReplyDefect.UNSIGNED),
        ({"signature": "é" * 64}, ReplyDefect.UNSIGNED),
        ({"signature": ""}, ReplyDefect.BAD_SIGNATURE),
        ({"signature": "0" * 64}, ReplyDefect.BAD_SIGNATURE),
        ({"station": "main-desk-2"}, ReplyDefect.OTHER_STATION),
        ({"station": None}, ReplyDefect.OTHER_STATION),
        ({"event_id": "another"}, ReplyDefect.BAD_SIGNATURE),
        ({"type": "bookdrop.action-reply.v1"}, ReplyDefect.BAD_SIGNATURE),
        ({"message": "\ud800"}, ReplyDefect.BAD_SIGNATURE),
    ],
)
def test_message_outside_the_signature_is_refused(change, defect):
    """Each defect has its name: no signature, another station, and any change of a signed field."""
    received = signed({"type": "bookdrop.return-reply.v1", "event_id": "one", "message": "to the lender"})

    assert reply_defect({**received, **change}, STATION, KEY) is defect


def test_message_to_a_station_with_the_same_key_is_refused():
    """Two stations that share a key accept no message to each other: the station is in the signed bytes."""
    assert reply_defect(signed({"type": "x"}, station="main-desk-2"), STATION, KEY) is ReplyDefect.OTHER_STATION


def test_keys_are_in_no_representation():
    """A key does not get into a log or a traceback."""
    assert KEY not in repr(ReplyKeys(STATION, KEY, OTHER)) + str(ReplyKeys(STATION, OTHER, KEY))
