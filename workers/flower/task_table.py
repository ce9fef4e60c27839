# SPDX-License-Identifier: Apache-2.0
"""Flower's list of tasks without the sweeps of housekeeping, which run every few seconds, unless a search asks for them."""

import re
from typing import Any, Final

from flower.views.tasks import TasksDataTable

from schemas.topology import ALL_TASKS, HOUSEKEEPING_QUEUE, PURGE_LINKS, SWEEP_OUTBOX, SWEEP_PRINTS, SWEEP_QUARANTINE

HOUSEKEEPING_TASKS: Final = frozenset({SWEEP_PRINTS, SWEEP_OUTBOX, SWEEP_QUARANTINE, PURGE_LINKS})

_ASKS_FOR_THEM: Final = re.compile(
    rf"sweep|purge|{HOUSEKEEPING_QUEUE}|[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}", re.IGNORECASE
)
"""A search with a part of their names, with the name of their worker, or with a task's whole id."""

_OTHER_TASKS: Final = " OR ".join(
    [*(f"name:{name}" for name in sorted(ALL_TASKS - HOUSEKEEPING_TASKS)), "state:FAILURE", "state:RETRY"]
)
"""Flower's search has no negation. Every task that Flower accepts has one of these names or is a sweep."""


def without_housekeeping(search: str) -> str:
    """The search of Flower's task page, restricted to other tasks and to sweeps that failed; see `_ASKS_FOR_THEM`."""
    if _ASKS_FOR_THEM.search(search):
        return search
    return f"({search}) ({_OTHER_TASKS})" if search.strip() else _OTHER_TASKS


class TaskTable(TasksDataTable):  # type: ignore[misc]  # Flower has no types
    """Serve the list of tasks in place of Flower's handler."""

    def get_argument(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Return an argument of the request; the search without the tasks of housekeeping."""
        value = super().get_argument(name, *arguments, **options)
        return without_housekeeping(str(value or "")) if name == "search[value]" else value
