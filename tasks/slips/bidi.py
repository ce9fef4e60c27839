# SPDX-License-Identifier: Apache-2.0
"""Scripts that run from right to left: the forms that Arabic letters take, and the order in which letters stand. Pure.

Hebrew and Arabic (with Persian and Urdu) are known; other scripts of that direction need shaping that nothing here has.
"""

import unicodedata
from typing import Final

from arabic_reshaper import ArabicReshaper
from bidi.algorithm import get_base_level, get_display

_RIGHT_TO_LEFT: Final = frozenset({"R", "AL", "AN"})
_HEBREW: Final = ((0x0590, 0x05FF), (0xFB1D, 0xFB4F))
_ARABIC: Final = ((0x0600, 0x06FF), (0x0750, 0x077F))
_ARABIC_FORMS: Final = ((0xFB50, 0xFDFF), (0xFE70, 0xFEFF))

_TO_RIGHT, _TO_LEFT = "\u200e", "\u200f"
_BRACKETS: Final = {"(": ")", "[": "]", "{": "}"}

# Ligatures of whole words are in few fonts, and the library joins the usual pair of lam and alef without them.
_RESHAPER: Final = ArabicReshaper({"delete_harakat": True, "support_ligatures": True, "shift_harakat_position": False})


def _within(char: str, *blocks: tuple[int, int]) -> bool:
    return any(first <= ord(char) <= last for first, last in blocks)


def runs_from_right(words: str) -> bool:
    """Tell whether some of `words` runs from right to left."""
    return not words.isascii() and any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in words)


def can_be_set(char: str) -> bool:
    """Tell whether a letter from `shaped` words can stand by itself: a form of Arabic, or a script without forms."""
    if unicodedata.bidirectional(char) not in _RIGHT_TO_LEFT:
        return True
    letter_of_arabic = unicodedata.category(char).startswith("L") and _within(char, *_ARABIC)
    return _within(char, *_HEBREW, *_ARABIC, *_ARABIC_FORMS) and not letter_of_arabic


def shaped(words: str) -> str:
    """`words`, still in the order of reading: Arabic letters in the forms they take beside each other.

    Points and vowel signs of Hebrew and Arabic go: titles are read without them, and set wrongly they mislead.
    """
    if not runs_from_right(words):
        return words
    kept = (char for char in words if not (unicodedata.category(char) == "Mn" and _within(char, *_HEBREW, *_ARABIC)))
    return str(_RESHAPER.reshape("".join(kept)))


def in_order_of_sight(line: str) -> str:
    """A line of `shaped` words as it stands on paper, from left to right (Unicode Standard Annex 9)."""
    if not runs_from_right(line):
        return line
    seen = str(get_display(_with_directed_brackets(line)))
    return seen.replace(_TO_RIGHT, "").replace(_TO_LEFT, "")


def _with_directed_brackets(line: str) -> str:
    """Marks of direction around the brackets that belong together: rule N0 of the annex, which the library has not."""
    strong = _directions(line)
    base = _TO_LEFT if get_base_level(line) else _TO_RIGHT
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
    """The direction of each letter; `None` for what takes its neighbours'. A number takes that of what it follows."""
    found: list[str | None] = []
    last = _TO_LEFT if get_base_level(line) else _TO_RIGHT
    for char in line:
        match unicodedata.bidirectional(char):
            case "L":
                last = _TO_RIGHT
                found.append(last)
            case "R" | "AL":
                last = _TO_LEFT
                found.append(last)
            case "EN":
                found.append(last)
            case "AN":
                found.append(_TO_LEFT)
            case _:
                found.append(None)
    return found
