# SPDX-License-Identifier: Apache-2.0
"""Signatures of events: the fields that they cover, and the encodings that they do not depend on."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.signing import canonical, fingerprint, sign, verify

KEY = b"a-key-of-the-tests"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
PAYLOADS = st.dictionaries(TEXT.filter(lambda name: name != "signature"), VALUES, min_size=1, max_size=4)


def signed(payload, key=KEY):
    """The payload with its signature."""
    return {**payload, "signature": sign(payload, key)}


@given(payload=PAYLOADS)
def test_signature_survives_another_json_encoding(payload):
    """Other spaces, escapes and another order of keys leave the signature valid."""
    message = signed(payload)

    received = json.loads(json.dumps(dict(reversed(message.items())), indent=3))

    assert verify(received, KEY)


@given(payload=PAYLOADS, data=st.data())
def test_changed_field_invalidates_the_signature(payload, data):
    """A field that changes after signing, known or unknown, makes the signature invalid."""
    message = signed(payload)
    name = data.draw(st.sampled_from(sorted(payload)))
    other = data.draw(VALUES)
    assume(canonical({"": other}) != canonical({"": payload[name]}))

    assert not verify({**message, name: other}, KEY)


@given(payload=PAYLOADS, data=st.data())
def test_removed_field_invalidates_the_signature(payload, data):
    """A field that is removed after signing makes the signature invalid."""
    message = signed(payload)
    del message[data.draw(st.sampled_from(sorted(payload)))]

    assert not verify(message, KEY)


@given(payload=PAYLOADS, name=TEXT, value=VALUES)
def test_added_field_invalidates_the_signature(payload, name, value):
    """A field that is added after signing makes the signature invalid."""
    assume(name not in payload and name != "signature")

    assert not verify({**signed(payload), name: value}, KEY)


@given(payload=PAYLOADS, key=st.binary(min_size=1, max_size=40))
def test_signature_of_another_key_is_invalid(payload, key):
    """A station cannot sign events of another station."""
    assume(key.rstrip(b"\0") != KEY)  # HMAC fills up keys with zero bytes (RFC 2104)

    assert not verify(signed(payload, key), KEY)


@pytest.mark.parametrize("signature", [None, 5, [], "", "00", "ä" * 64])
def test_malformed_signature_is_invalid(signature):
    """A value of another type or form is an invalid signature, and raises no error."""
    assert not verify({"barcode": "1", "signature": signature}, KEY)


def test_missing_signature_is_invalid():
    """An event without a signature is not verified."""
    assert not verify({"barcode": "1"}, KEY)


@given(payload=PAYLOADS, other=st.text(max_size=5))
def test_fingerprint_ignores_the_signature(payload, other):
    """Two signatures of one payload leave its fingerprint the same."""
    assert fingerprint({**payload, "signature": other}) == fingerprint(payload)


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), float("nan"), float("inf"), b"bytes", {1: "a number as key"}, "\ud800"]
)
def test_value_outside_canonical_json_raises_value_error(value):
    """Values that languages encode differently are refused before signing."""
    with pytest.raises(ValueError, match=r"."):
        canonical({"value": value})


def test_canonical_json_sorts_keys_by_utf16_code_units():
    """The keys are those of the example in RFC 8785, section 3.2.3."""
    payload = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\xf6": 7}

    assert list(json.loads(canonical(payload)).values()) == [2, 4, 6, 7, 1, 5, 3]
