# SPDX-License-Identifier: Apache-2.0
"""The task and worker events that Flower accepts. Pure.

Every program that may write to the broker's event exchange can send an event. Celery copies each field of an event into
the attributes of a task or worker, and Flower makes metric labels from the names: so both are compared with this list.
Source: Celery's documentation, "Monitoring and Management Guide", section "Event Reference".
"""

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from schemas.print_jobs import PrintState
from schemas.task_message import is_uuid
from schemas.topology import ALL_TASKS, CODE_PATTERN

MAX_TEXT: Final = 2_000
"""Characters of a text that are kept."""

SLIP_EVENT: Final = "task-slip-"

_TASK_EVENTS: Final = frozenset(
    f"task-{name}" for name in ("sent", "received", "started", "succeeded", "failed", "rejected", "revoked", "retried")
) | {SLIP_EVENT + state.value.replace("_", "-") for state in PrintState}
_WORKER_EVENTS: Final = frozenset(f"worker-{name}" for name in ("online", "heartbeat", "offline"))

_WORKER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}@[A-Za-z0-9][A-Za-z0-9._-]{0,253}\Z")
_CODE: Final = re.compile(CODE_PATTERN)
_LATEST: Final = 253_402_300_799
"""The last second of the year 9999, as a Unix time."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_time(value: object) -> bool:
    return _is_number(value) and isinstance(value, int | float) and value <= _LATEST


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_flag(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _is_id(value: object) -> bool:
    return value is None or is_uuid(value)


_FIELDS: Final[Mapping[str, Callable[[object], bool]]] = MappingProxyType(
    {
        "local_received": _is_time,
        "clock": _is_number,
        "pid": _is_number,
        "utcoffset": lambda value: isinstance(value, int) and abs(value) <= 24,  # noqa: PLR2004 - hours
        # of a task
        "args": _is_text,
        "kwargs": _is_text,
        "retries": _is_number,
        "eta": _is_text,
        "expires": _is_text,
        "queue": _is_text,
        "exchange": _is_text,
        "routing_key": _is_text,
        "root_id": _is_id,
        "parent_id": _is_id,
        "result": _is_text,
        "exception": _is_text,
        "traceback": _is_text,
        "runtime": _is_number,
        "requeue": _is_flag,
        "terminated": _is_flag,
        "expired": _is_flag,
        "signum": lambda value: value is None or _is_number(value),
        "slip": is_uuid,
        "printer": lambda value: value is None or (isinstance(value, str) and _is_code(value)),
        # of a worker
        "freq": lambda value: _is_number(value) and value != 0,
        "active": _is_number,
        "processed": _is_number,
        "loadavg": lambda value: isinstance(value, list) and len(value) <= 3 and all(map(_is_number, value)),  # noqa: PLR2004
        "sw_ident": _is_text,
        "sw_ver": _is_text,
        "sw_sys": _is_text,
    }
)
"""Fields that are kept, with the rule for their values. Others are removed, as is a field that breaks its rule."""


def is_worker_name(name: object) -> bool:
    """True for a name of the form `role@host`. Any program that responds to remote control chooses its name."""
    return isinstance(name, str) and _WORKER_NAME.match(name) is not None


def accepted_event(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the event with its known fields, or `None` for an event that Flower must not process.

    The type is one of Celery's or of a print job's state, the worker's name has the form `role@host`, and a task is one
    of bookdrop's.
    """
    kind, worker = event.get("type"), event.get("hostname")
    if not isinstance(kind, str) or kind not in _TASK_EVENTS | _WORKER_EVENTS:
        return None
    if not is_worker_name(worker) or not _is_time(event.get("timestamp")):
        return None
    kept = {
        name: value[:MAX_TEXT] if isinstance(value, str) else value
        for name, value in event.items()
        if name in _FIELDS and _FIELDS[name](value)
    }
    kept |= {"type": kind, "hostname": worker, "timestamp": event["timestamp"]}
    kept.setdefault("local_received", event["timestamp"])
    kept.setdefault("clock", 0)
    if kind in _WORKER_EVENTS:
        return kept
    name = event.get("name")
    is_known = name is None or (isinstance(name, str) and name in ALL_TASKS)
    if not is_known or not is_uuid(event.get("uuid")):
        return None
    return {**kept, "uuid": event["uuid"], **({} if name is None else {"name": name})}


def _is_code(value: str) -> bool:
    return len(value) <= 40 and _CODE.match(value) is not None and not value.endswith("\n")  # noqa: PLR2004
