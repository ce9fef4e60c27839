# SPDX-License-Identifier: Apache-2.0
"""The operator: the person who acts on a print job or a quarantined message, and their reason."""

from dataclasses import dataclass
from typing import Final

MAX_NAME_LENGTH: Final = 100
"""Characters of an operator's name that are stored; the rest is cut off."""

MAX_REASON_LENGTH: Final = 500
"""Characters of a reason that are stored; the rest is cut off."""


@dataclass(frozen=True)
class Operator:
    """A person who makes a decision, and why. Longer texts are cut off; an empty reason becomes `None`."""

    actor: str
    reason: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "actor", self.actor[:MAX_NAME_LENGTH])
        object.__setattr__(self, "reason", (self.reason or "")[:MAX_REASON_LENGTH] or None)
