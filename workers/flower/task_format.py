# SPDX-License-Identifier: Apache-2.0
"""Format the arguments of a task for Flower: the id of the event or print job, and its kind."""

import re
from typing import Any, Final

from schemas.topology import FOLLOW_SLIP, PRINT_ACTIONS, PRINT_SLIP, STATION_TASKS

_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KINDS: Final = {
    **dict.fromkeys((PRINT_SLIP, FOLLOW_SLIP, *PRINT_ACTIONS), "slip"),
    **dict.fromkeys(STATION_TASKS, "event"),
}


def format_task(task: Any) -> Any:
    """Replace the arguments of a bookdrop task by the id among them, and return the task. Flower's `format_task`.

    Arguments of other tasks are unchanged. An operator's reason, which may name a patron, is not shown.
    """
    kind = _KINDS.get(task.name)
    if kind is not None:
        found = _ID.search(f"{task.args} {task.kwargs}")
        task.args = f"{kind} {found[0]}" if found else ""
        task.kwargs = ""
    return task
