# SPDX-License-Identifier: Apache-2.0
"""Signatures of events: HMAC-SHA256 over canonical JSON (RFC 8785), unknown fields included.

No message carries a float, so every language's canonical JSON agrees to the byte.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import rfc8785


def canonical(payload: Mapping[str, Any]) -> bytes:
    """The bytes that are signed and hashed: `payload` without its `signature`, as RFC 8785 JSON.

    Raises `ValueError` for what canonical JSON cannot carry (such as integers beyond 2^53).
    """
    return rfc8785.dumps({k: v for k, v in payload.items() if k != "signature"})


def sign(payload: Mapping[str, Any], key: bytes) -> str:
    """Signature of `payload` with a station's `key`, 64 hexadecimal digits."""
    return hmac.new(key, canonical(payload), hashlib.sha256).hexdigest()


def verify(payload: Mapping[str, Any], key: bytes) -> bool:
    """Tell whether `payload` carries the signature that `key` gives, in constant time."""
    given = payload.get("signature")
    return isinstance(given, str) and hmac.compare_digest(sign(payload, key).encode(), given.encode())


def fingerprint(payload: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical payload: the same event id with another one is not the same event."""
    return hashlib.sha256(canonical(payload)).hexdigest()
