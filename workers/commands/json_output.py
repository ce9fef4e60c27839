# SPDX-License-Identifier: Apache-2.0
"""JSON for a terminal or a program: readable letters of every script, and no character that a terminal obeys."""

import json
import unicodedata
from typing import Any

from schemas.external_text import KEPT_FORMATS, REMOVED


def to_json(content: Any, indent: int | None = 2) -> str:
    """`content` as JSON. Controls, bidirectional overrides and similar characters are escapes such as `\\u202e`."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(_escaped(char) if _is_obeyed(char) else char for char in text)


def _is_obeyed(char: str) -> bool:
    return char != "\n" and char not in KEPT_FORMATS and unicodedata.category(char) in REMOVED


def _escaped(char: str) -> str:
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]
