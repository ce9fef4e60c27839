# SPDX-License-Identifier: Apache-2.0
"""International Standard Book Numbers (ISO 2108)."""

import re
from typing import Final

_CANDIDATE: Final = re.compile(r"(?<![0-9Xx])(?:97[89][ -]?)?(?:[0-9][ -]?){9}[0-9Xx](?![0-9Xx])")


def find_isbn(text: str) -> str | None:
    """The first valid ISBN in `text` as 13 digits; `None` when there is none. "(hbk.)" and a second number may follow."""
    for candidate in _CANDIDATE.finditer(text):
        number = candidate[0].replace("-", "").replace(" ", "").upper()
        if len(number) == 10 and _remainder_of_10(number) == 0:  # noqa: PLR2004
            first = f"978{number[:9]}"
            return f"{first}{-_sum_of_13(first) % 10}"
        if len(number) == 13 and number.isdigit() and _sum_of_13(number) % 10 == 0:  # noqa: PLR2004
            return number
    return None


def _remainder_of_10(number: str) -> int:
    values = [10 if digit == "X" else int(digit) for digit in number]
    return sum(value * weight for value, weight in zip(values, range(10, 0, -1), strict=True)) % 11


def _sum_of_13(number: str) -> int:
    return sum(int(digit) * (3 if index % 2 else 1) for index, digit in enumerate(number))
