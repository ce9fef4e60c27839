# SPDX-License-Identifier: Apache-2.0
"""How Flower shows what a task was given: an id, and in words what it is of."""

import re
from typing import Any, Final

from schemas.topology import FOLLOW_SLIP, PRINT_ACTIONS, PRINT_SLIP, STATION_TASKS

_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def readable(task: Any) -> Any:
    """Flower's `format_task`: replace the arguments of one of our tasks by the id among them; give the task.

    Of a decision about a slip the names stay in sight, not the reason.
    """
    kind = {**dict.fromkeys((PRINT_SLIP, FOLLOW_SLIP, *PRINT_ACTIONS), "slip"), **dict.fromkeys(STATION_TASKS, "event")}
    what = kind.get(task.name)
    if what is not None:
        found = _ID.search(f"{task.args} {task.kwargs}")
        task.args = f"{what} {found[0]}" if found else ""
        task.kwargs = ""
    return task
