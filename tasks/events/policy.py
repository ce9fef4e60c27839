# SPDX-License-Identifier: Apache-2.0
"""The library's settings that affect how events are handled."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID


@dataclass(frozen=True)
class LibraryPolicy:
    """The library's own rules, and the generator of print job ids."""

    new_id: Callable[[], UUID]
    undo_window: timedelta
    """Zero turns undo off."""
    patron_card_pattern: str | None = None
    """Regular expression that matches a patron card's whole number."""
    own_branch_only: bool = False
    """Undo and overrides are refused to stations of other branches."""
