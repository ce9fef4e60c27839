# SPDX-License-Identifier: Apache-2.0
"""Faults between receiving a message and the pool. A worker loads them with `-I tests.handover_faults`.

The arguments of a message's event name its fault: the body contains `fault-`, one of the names below, and `-`.
"""

import re
from typing import Any

from kombu.asynchronous import get_event_loop

from schemas.station_status import HEADER
from tasks.circulation import handler as _handler  # noqa: F401 - completes the import of the tasks
from tasks.events import event_task
from workers.runtime import batching, consumer

CHECK, CONSTRUCTION, STRATEGY, SERIALISATION, END = "check", "construction", "strategy", "serialisation", "end"
HANDOVER_FAULTS = (CHECK, CONSTRUCTION, STRATEGY, SERIALISATION)
"""Each raises an exception that no message of today raises: the next one may."""


class _Unserialisable:
    def __reduce__(self) -> Any:
        raise RecursionError("injected")


def _fault(body: object) -> str | None:
    text = (
        body if isinstance(body, str) else bytes(body).decode() if isinstance(body, bytes | memoryview) else repr(body)
    )
    found = re.search(r"fault-(\w+)-", text)
    return found[1] if found else None


def _raise() -> None:
    raise RuntimeError("injected")


def _install() -> None:
    check, construct = consumer.Consumer._defect, event_task.EventRequest.__init__
    add = batching.EventBatcher.add

    def faulty_check(self: Any, message: Any) -> Any:
        if _fault(message.body) == CHECK:
            raise OSError("injected")
        return check(self, message)

    def faulty_construction(self: Any, message: Any, *args: Any, **options: Any) -> None:
        fault = _fault(message.body)
        if fault == CONSTRUCTION:
            raise OverflowError("injected")
        construct(self, message, *args, **options)
        if fault == SERIALISATION:
            self._request_dict[HEADER] = _Unserialisable()
        if fault == END:
            loop: Any = get_event_loop()
            loop.call_soon(_raise)

    def faulty_add(self: Any, request: Any) -> None:
        if _fault(request.body) == STRATEGY:
            raise KeyError("injected")
        add(self, request)

    consumer.Consumer._defect = faulty_check  # type: ignore[method-assign]
    event_task.EventRequest.__init__ = faulty_construction  # type: ignore[method-assign]
    batching.EventBatcher.add = faulty_add  # type: ignore[method-assign]


_install()
