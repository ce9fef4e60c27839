# SPDX-License-Identifier: Apache-2.0
"""Clean a staff member's note: bounded, plain text. Pure."""

from schemas.external_text import text_lines

MAX_LENGTH = 2000
"""Characters of a note that are stored; a longer note is cut and ends with "[cut]"."""

_CUT = " [cut]"


def clean_note(note: str | None) -> str | None:
    """The note as it is stored: printable text (line ends stay), at most `MAX_LENGTH` long.

    Markup is kept as the text it is; each output escapes it for its medium.
    """
    if note is None:
        return None
    plain = text_lines(note).strip()
    if len(plain) > MAX_LENGTH:
        plain = plain[: MAX_LENGTH - len(_CUT)] + _CUT
    return plain or None
