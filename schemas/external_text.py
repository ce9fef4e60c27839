# SPDX-License-Identifier: Apache-2.0
"""Text from outside: of a printer, a sender, a form or a file. Every such text passes here once, where it enters. Pure.

The result is safe for PostgreSQL, which refuses NUL in text and JSON paths, for a terminal, which obeys escape
sequences, and for a line of text, which a bidirectional override would show in another order than it is stored.
"""

import unicodedata
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator

REMOVED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of the removed characters: controls, formats, surrogates, line and paragraph separators."""

KEPT_FORMATS: Final = frozenset("\u200c\u200d\u200e\u200f\u061c")
"""Format characters that texts need: the joiners of Persian, Urdu and Indic scripts, and marks of direction. The marks
change no order beyond their neighbours, unlike overrides, embeddings and isolates."""

CUT: Final = "…"
"""Last character of a text that was cut."""


def printable(text: str) -> str:
    """The text without the characters that are not printed. White space stays."""
    if text.isprintable():
        return text
    return "".join(
        char for char in text if char.isspace() or char in KEPT_FORMATS or unicodedata.category(char) not in REMOVED
    )


def one_line(text: str, max_length: int | None = None) -> str:
    """The text as one line: printable characters, white space folded to single spaces, at most `max_length` of them."""
    line = " ".join(printable(text).split())
    return line if max_length is None or len(line) <= max_length else line[: max_length - len(CUT)] + CUT


def text_lines(text: str) -> str:
    """The text with its lines: line ends become newlines, tabs stay, other white space that is not printed is a space."""
    plain = printable(text.replace("\r\n", "\n").replace("\r", "\n"))
    return "".join(char if char in "\n\t" or char.isprintable() or char in KEPT_FORMATS else " " for char in plain)


def _line(value: object) -> object:
    return one_line(value) if isinstance(value, str) else value


Line = Annotated[str, AfterValidator(_line)]
"""A text of a message as one printable line."""

GivenLine = BeforeValidator(_line)
"""Makes a line of a field before its length is checked, so that a required text of control characters counts as empty."""
