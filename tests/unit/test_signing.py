# SPDX-License-Identifier: Apache-2.0
"""Signatures of events: what they cover, and what they do not depend on."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.signing import canonical, fingerprint, sign, verify

KEY = b"a-key-of-the-tests"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
PAYLOADS = st.dictionaries(TEXT.filter(lambda name: name != "signature"), VALUES, min_size=1, max_size=6)


def signed(payload, key=KEY):
    """The payload with its signature."""
    return {**payload, "signature": sign(payload, key)}


@given(payload=PAYLOADS)
def test_a_signed_payload_is_believed_after_its_way_over_the_wire(payload):
    """JSON in between, with other spaces, escapes and order of keys, makes no difference."""
    message = signed(payload)

    received = json.loads(json.dumps(dict(reversed(message.items())), indent=3))

    assert verify(received, KEY)


@given(payload=PAYLOADS, data=st.data())
def test_any_changed_field_breaks_the_signature(payload, data):
    """No field can be changed after signing, known or unknown."""
    message = signed(payload)
    name = data.draw(st.sampled_from(sorted(payload)))
    other = data.draw(VALUES)
    assume(canonical({"": other}) != canonical({"": payload[name]}))

    assert not verify({**message, name: other}, KEY)


@given(payload=PAYLOADS, data=st.data())
def test_any_removed_field_breaks_the_signature(payload, data):
    """No field can be left out after signing."""
    message = signed(payload)
    del message[data.draw(st.sampled_from(sorted(payload)))]

    assert not verify(message, KEY)


@given(payload=PAYLOADS, name=TEXT, value=VALUES)
def test_any_added_field_breaks_the_signature(payload, name, value):
    """No field can be put in after signing."""
    assume(name not in payload and name != "signature")

    assert not verify({**signed(payload), name: value}, KEY)


@given(payload=PAYLOADS, key=st.binary(min_size=1, max_size=40))
def test_another_key_gives_another_signature(payload, key):
    """A station cannot speak for another one."""
    assume(key.rstrip(b"\0") != KEY)  # HMAC fills up keys with zero bytes (RFC 2104)

    assert not verify(signed(payload, key), KEY)


@pytest.mark.parametrize("signature", [None, 5, [], "", "00", "ä" * 64])
def test_what_is_no_signature_is_not_believed(signature):
    """Anything else in the signature's place is a wrong signature and no error."""
    assert not verify({"barcode": "1", "signature": signature}, KEY)


def test_a_missing_signature_is_not_believed():
    """An event without a signature is nobody's."""
    assert not verify({"barcode": "1"}, KEY)


@given(payload=PAYLOADS, other=st.text(max_size=5))
def test_the_fingerprint_leaves_the_signature_out(payload, other):
    """The fingerprint is the event's, whatever stands in its signature."""
    assert fingerprint({**payload, "signature": other}) == fingerprint(payload)


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), float("nan"), float("inf"), b"bytes", {1: "a number as key"}, "\ud800"]
)
def test_what_canonical_json_cannot_carry_is_an_error(value):
    """Values on which languages differ are refused before they are signed."""
    with pytest.raises(ValueError, match=r"."):
        canonical({"value": value})


def test_canonical_json_sorts_keys_as_rfc_8785_says():
    """The order is that of UTF-16 code units, the example of RFC 8785, section 3.2.3."""
    payload = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\xf6": 7}

    assert list(json.loads(canonical(payload)).values()) == [2, 4, 6, 7, 1, 5, 3]
