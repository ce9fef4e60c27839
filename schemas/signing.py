# SPDX-License-Identifier: Apache-2.0
"""Signatures of events: HMAC-SHA256 over canonical JSON (RFC 8785), unknown fields included.

No message contains a float, so canonical JSON is the same in every language, byte for byte.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import rfc8785


def canonical(payload: Mapping[str, Any]) -> bytes:
    """The bytes that are signed and hashed: `payload` without its `signature`, as RFC 8785 JSON.

    Raises `ValueError` for values that canonical JSON cannot represent, for example integers beyond 2^53.
    """
    return rfc8785.dumps({k: v for k, v in payload.items() if k != "signature"})


def sign(payload: Mapping[str, Any], key: bytes) -> str:
    """Signature of `payload` with a station's `key`, 64 hexadecimal digits."""
    return hmac.new(key, canonical(payload), hashlib.sha256).hexdigest()


def verify(payload: Mapping[str, Any], key: bytes) -> bool:
    """True if the signature in `payload` is that of `key`; compared in constant time."""
    return verify_canonical(canonical(payload), payload.get("signature"), key)


def verify_canonical(payload: bytes, signature: object, key: bytes) -> bool:
    """True if `signature` is that of `key` over the canonical bytes `payload`; compared in constant time."""
    if not isinstance(signature, str) or not signature.isascii():
        return False
    return hmac.compare_digest(hmac.new(key, payload, hashlib.sha256).hexdigest().encode(), signature.encode())


def fingerprint(payload: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical payload. It distinguishes two events that have the same event id."""
    return hashlib.sha256(canonical(payload)).hexdigest()
