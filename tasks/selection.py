# SPDX-License-Identifier: Apache-2.0
"""The rows that an action on several rows would change: its dry run, and the version that binds the action to it. Pure."""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Id = TypeVar("Id", bound=Hashable)


@dataclass(frozen=True)
class Selection(Generic[Id]):
    """The selected rows, the oldest first."""

    ids: tuple[Id, ...]
    """At most as many as one action changes."""
    total: int
    """Number of all that match."""

    @property
    def version(self) -> str:
        """A text that differs when the rows differ: their number, and a part of the SHA-256 of their ids."""
        digest = hashlib.sha256("\n".join(map(str, self.ids)).encode()).hexdigest()
        return f"{self.total}-{digest[:32]}"

    @property
    def left(self) -> int:
        """Number of matching rows that one action does not change."""
        return self.total - len(self.ids)
