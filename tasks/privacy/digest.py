# SPDX-License-Identifier: Apache-2.0
"""Keyed hash of a barcode that no item had: equal for equal barcodes, and useless without the key. Pure."""

import hashlib
import hmac
from typing import Final

_PURPOSE: Final = b"bookdrop.unknown-barcode.v1\0"
"""Distinguishes these hashes from every other use of the key."""


def barcode_digest(barcode: str, key: str) -> str:
    """HMAC-SHA256 of `barcode` with the installation's `key`, 64 hexadecimal digits."""
    return hmac.new(key.encode(), _PURPOSE + barcode.encode(), hashlib.sha256).hexdigest()
