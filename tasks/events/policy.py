# SPDX-License-Identifier: Apache-2.0
"""The library's own rules, as far as a desk's events are touched by them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID


@dataclass(frozen=True)
class LibraryPolicy:
    """The library's own rules, and where ids of new slips come from."""

    new_id: Callable[[], UUID]
    undo_window: timedelta
    patron_card_pattern: str | None = None
