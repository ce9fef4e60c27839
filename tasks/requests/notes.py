# SPDX-License-Identifier: Apache-2.0
"""Clean a staff member's note: bounded, plain text. Pure."""

import unicodedata

MAX_LENGTH = 2000
"""Characters of a note that are stored; a longer note is cut and ends with "[cut]"."""

_CUT = " [cut]"


def clean_note(note: str | None) -> str | None:
    """The note as it is stored: text without control characters (line ends stay), at most `MAX_LENGTH` long.

    Markup is kept as the text it is; each output escapes it for its medium.
    """
    if note is None:
        return None
    lines = note.replace("\r\n", "\n").replace("\r", "\n")
    plain = "".join(char for char in lines if char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cs"}).strip()
    if len(plain) > MAX_LENGTH:
        plain = plain[: MAX_LENGTH - len(_CUT)] + _CUT
    return plain or None
