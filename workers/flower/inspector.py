# SPDX-License-Identifier: Apache-2.0
"""Flower's record of what workers reply to inspection, bounded in number and size.

Every program that may write to the queue for the replies can send one, under any name of a worker.
"""

from typing import Any, Final

from flower.inspector import Inspector

from schemas.task_message import MAX_NESTING
from workers.flower.event_filter import is_worker_name

MAX_WORKERS: Final = 500
"""Names that are kept; a reply under a further one is ignored."""
MAX_CHARACTERS: Final = 262_144
"""Characters of one reply. That of a worker with all queues and tasks has a tenth."""


class BoundedInspector(Inspector):  # type: ignore[misc]  # Flower has no types
    """Flower's inspector, which otherwise keeps every reply for as long as it runs."""

    workers: dict[str, Any]

    def _on_update(self, workername: object, method: str, response: object) -> None:
        """Keep a reply to the inspection `method`."""
        if not is_worker_name(workername) or not isinstance(response, dict | list):
            return
        if workername not in self.workers and len(self.workers) >= MAX_WORKERS:
            return
        if _is_small(response):
            super()._on_update(workername, method, response)


def _is_small(response: object) -> bool:
    """True for a reply within the limits; nested deeper than an event's message it counts as too large."""
    left, level = MAX_CHARACTERS, [response]
    for _ in range(MAX_NESTING):
        below: list[object] = []
        for value in level:
            left -= len(value) + 1 if isinstance(value, str | bytes) else 8
            if isinstance(value, dict):
                below += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple):
                below += value
            if left < 0 or len(below) > MAX_CHARACTERS:
                return False
        if not below:
            return True
        level = below
    return False
