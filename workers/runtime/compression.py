# SPDX-License-Identifier: Apache-2.0
"""Refuse compressed messages: kombu decompresses in a message's constructor, before any check and without a limit."""

from typing import Any, NoReturn

from kombu import compression


def refuse_compression() -> None:
    """Make kombu raise for each compressed body in this process. 1.4 kB on the wire can become 1.67 GB in memory."""
    for content_type in compression.encoders():
        compression.register(_refuse, _refuse, content_type)


def _refuse(_body: Any) -> NoReturn:
    raise ValueError("compressed messages are refused")
