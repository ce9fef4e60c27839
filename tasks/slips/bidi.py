# SPDX-License-Identifier: Apache-2.0
"""Right-to-left scripts: the contextual forms of Arabic letters, and the visual order of a line. Pure.

Hebrew and Arabic (with Persian and Urdu) are supported. Other right-to-left scripts need shaping that is not available.
"""

import unicodedata
from typing import Final

from arabic_reshaper import ArabicReshaper
from bidi.algorithm import get_base_level, get_display

_RIGHT_TO_LEFT: Final = frozenset({"R", "AL", "AN"})
_HEBREW: Final = ((0x0590, 0x05FF), (0xFB1D, 0xFB4F))
_ARABIC: Final = ((0x0600, 0x06FF), (0x0750, 0x077F))
_ARABIC_FORMS: Final = ((0xFB50, 0xFDFF), (0xFE70, 0xFEFF))

_LEFT_TO_RIGHT_MARK, _RIGHT_TO_LEFT_MARK = "\u200e", "\u200f"
_BRACKETS: Final = {"(": ")", "[": "]", "{": "}"}

# Few fonts contain ligatures of whole words. The library joins the usual pair of lam and alef without them.
_RESHAPER: Final = ArabicReshaper({"delete_harakat": True, "support_ligatures": True, "shift_harakat_position": False})


def _within(char: str, *blocks: tuple[int, int]) -> bool:
    return any(first <= ord(char) <= last for first, last in blocks)


def contains_right_to_left(text: str) -> bool:
    """True when `text` contains a right-to-left character."""
    return not text.isascii() and any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in text)


def can_print(char: str) -> bool:
    """True when a character of `shape`d text can be printed alone: an Arabic form, or a script without forms."""
    if unicodedata.bidirectional(char) not in _RIGHT_TO_LEFT:
        return True
    letter_of_arabic = unicodedata.category(char).startswith("L") and _within(char, *_ARABIC)
    return _within(char, *_HEBREW, *_ARABIC, *_ARABIC_FORMS) and not letter_of_arabic


def shape(text: str) -> str:
    """`text` in logical order, its Arabic letters in their contextual forms.

    Points and vowel signs of Hebrew and Arabic are removed: titles are read without them, and in a wrong position they
    mislead.
    """
    if not contains_right_to_left(text):
        return text
    kept = (char for char in text if not (unicodedata.category(char) == "Mn" and _within(char, *_HEBREW, *_ARABIC)))
    return str(_RESHAPER.reshape("".join(kept)))


def visual_order(line: str) -> str:
    """A line of `shape`d text in visual order, from left to right (Unicode Standard Annex 9)."""
    if not contains_right_to_left(line):
        return line
    displayed = str(get_display(_mark_brackets(line)))
    return displayed.replace(_LEFT_TO_RIGHT_MARK, "").replace(_RIGHT_TO_LEFT_MARK, "")


def _mark_brackets(line: str) -> str:
    """Add direction marks around paired brackets: rule N0 of the annex, which the library does not implement."""
    strong = _directions(line)
    base = _RIGHT_TO_LEFT_MARK if get_base_level(line) else _LEFT_TO_RIGHT_MARK
    marks: dict[int, str] = {}
    opened: list[int] = []
    for at, char in enumerate(line):
        if char in _BRACKETS:
            opened.append(at)
        elif opened and char == _BRACKETS[line[opened[-1]]]:
            start = opened.pop()
            inside = set(filter(None, strong[start:at]))
            before = next(filter(None, reversed(strong[:start])), base)
            if inside:
                marks[start] = marks[at] = base if base in inside else before
    return "".join(f"{marks[at]}{char}{marks[at]}" if at in marks else char for at, char in enumerate(line))


def _directions(line: str) -> list[str | None]:
    """The strong direction of each character; `None` for neutral ones. A number has the direction of what precedes it."""
    found: list[str | None] = []
    last = _RIGHT_TO_LEFT_MARK if get_base_level(line) else _LEFT_TO_RIGHT_MARK
    for char in line:
        match unicodedata.bidirectional(char):
            case "L":
                last = _LEFT_TO_RIGHT_MARK
                found.append(last)
            case "R" | "AL":
                last = _RIGHT_TO_LEFT_MARK
                found.append(last)
            case "EN":
                found.append(last)
            case "AN":
                found.append(_RIGHT_TO_LEFT_MARK)
            case _:
                found.append(None)
    return found
