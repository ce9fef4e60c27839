# SPDX-License-Identifier: Apache-2.0
"""The operator: the person who acts on a print job or a quarantined message, and their reason."""

from dataclasses import dataclass
from typing import Final

from schemas.external_text import one_line

MAX_NAME_LENGTH: Final = 100
"""Characters of an operator's name that are stored; the rest is cut off."""

MAX_REASON_LENGTH: Final = 500
"""Characters of a reason that are stored; the rest is cut off."""


@dataclass(frozen=True)
class Operator:
    """A person who makes a decision, and why, each one printable line. A longer text is cut; an empty reason is `None`."""

    actor: str
    reason: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "actor", one_line(self.actor, MAX_NAME_LENGTH))
        object.__setattr__(self, "reason", one_line(self.reason or "", MAX_REASON_LENGTH) or None)
