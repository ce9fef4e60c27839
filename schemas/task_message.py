# SPDX-License-Identifier: Apache-2.0
"""The task message (Celery's protocol 2) as plain values, which any language can write.

Source: Celery's documentation, "Message Protocol", version 2.
"""

from typing import Any


def task_headers(task: str, task_id: str, *, origin: str) -> dict[str, Any]:
    """Headers of a task message. `argsrepr`, which monitors show, contains the id only."""
    return {
        "lang": "py",
        "task": task,
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "group": None,
        "group_index": None,
        "shadow": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": repr((task_id,)),
        "kwargsrepr": "{}",
        "origin": origin,
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def task_body(argument: str) -> str:
    """Body of a task message with one argument, given as JSON text."""
    return f'[[{argument}], {{}}, {{"callbacks": null, "errbacks": null, "chain": null, "chord": null}}]'
