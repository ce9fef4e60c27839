# SPDX-License-Identifier: Apache-2.0
"""What a look at one part found: its state in words, and what to do about it."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. A good one with advice is a note: nothing stands still for it."""

    part: str
    good: bool
    words: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def guarded(part: str, look: Callable[[], Iterator[Finding]], advice: str) -> list[Finding]:
    """Look, and make a finding of whatever error ends the look."""
    found: list[Finding] = []
    try:
        found.extend(look())
    except SQLAlchemyError as error:
        found.append(Finding(part, good=False, words=str(getattr(error, "orig", error)).strip(), advice=advice))
    except Exception as error:  # noqa: BLE001 - whatever a driver raises is the finding
        found.append(Finding(part, good=False, words=f"{type(error).__name__}: {error}", advice=advice))
    return found
