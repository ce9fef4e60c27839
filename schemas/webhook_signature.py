# SPDX-License-Identifier: Apache-2.0
"""Signatures of webhooks: Standard Webhooks 1.0.0, symmetric scheme (HMAC-SHA256, identifier `v1`)."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the beginning of every secret
MIN_SECRET_BYTES: Final = 24
MAX_SECRET_BYTES: Final = 64
"""Limits of the specification: 192 to 512 bits."""
TOLERANCE: Final = timedelta(minutes=5)
"""Largest difference between `webhook-timestamp` and the receiver's clock."""


class InvalidSecretError(ValueError):
    """The text is not a secret of the symmetric scheme."""


def format_secret(key: bytes) -> str:
    """Return `key` (24 to 64 bytes) as receivers configure it: `whsec_` and base64."""
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise InvalidSecretError(f"a secret has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, not {len(key)}")
    return SECRET_PREFIX + base64.b64encode(key).decode("ascii")


def read_secret(secret: str) -> bytes:
    """Return the key of a secret. Raises `InvalidSecretError`; its text does not contain the secret."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSecretError(f"a secret is {SECRET_PREFIX} and base64") from None
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise InvalidSecretError(f"a secret has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, not {len(key)}")
    return key


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return one signature, `v1,` and base64, over `message_id.timestamp.body`. `timestamp`: seconds since 1970."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(read_secret(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode("ascii")


def signed_headers(secrets: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the three headers of the specification, with a signature for each of `secrets`, the present one first.

    `at`: aware time of this attempt. Raises `ValueError` for an id with a full stop, which separates the signed parts.
    """
    if not message_id or "." in message_id:
        raise ValueError(f"not an id of a webhook: {message_id!r}")
    timestamp = int(at.timestamp())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(secret, message_id, timestamp, body) for secret in secrets),
    }
