# SPDX-License-Identifier: Apache-2.0
"""A staff member's note: bounded and plain. Pure."""

import unicodedata

MAX_LENGTH = 2000
"""Longest note that is kept, in characters; a longer one is cut and says so."""

_CUT = " [cut]"


def clean_note(note: str | None) -> str | None:
    """The note as it is stored: text without control characters (line ends stay), at most `MAX_LENGTH` long.

    Markup is kept as the text it is; whoever shows it escapes it for its medium.
    """
    if note is None:
        return None
    lines = note.replace("\r\n", "\n").replace("\r", "\n")
    plain = "".join(char for char in lines if char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cs"}).strip()
    if len(plain) > MAX_LENGTH:
        plain = plain[: MAX_LENGTH - len(_CUT)] + _CUT
    return plain or None
