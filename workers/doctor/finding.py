# SPDX-License-Identifier: Apache-2.0
"""The result of a check: part, message and advice."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from schemas.external_text import one_line

MAX_MESSAGE_LENGTH: Final = 1000
"""Characters of a finding's message; a longer one is cut."""


@dataclass(frozen=True)
class Finding:
    """The result of one check. A passing result may carry advice."""

    part: str
    ok: bool
    message: str
    advice: str = ""

    def __post_init__(self) -> None:
        # Names of workers and errors of servers come from outside.
        object.__setattr__(self, "message", one_line(self.message, MAX_MESSAGE_LENGTH))

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as a dictionary for JSON."""
        return asdict(self)


def guarded(part: str, check: Callable[[], Iterator[Finding]], advice: str) -> list[Finding]:
    """Run `check` and return its findings. An exception ends it and becomes a failing finding with `advice`."""
    findings: list[Finding] = []
    try:
        findings.extend(check())
    except SQLAlchemyError as error:
        findings.append(Finding(part, ok=False, message=str(getattr(error, "orig", error)).strip(), advice=advice))
    except Exception as error:  # noqa: BLE001 - any error of a driver is a finding
        findings.append(Finding(part, ok=False, message=f"{type(error).__name__}: {error}", advice=advice))
    return findings
