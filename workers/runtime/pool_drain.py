# SPDX-License-Identifier: Apache-2.0
"""What a process of the pool has begun, and the worker has not heard of yet.

When Celery lets go of its connection, at the end or to make a new one, it forgets each job that no process has said to
have begun. One that was handed over a moment ago is done all the same: its message would be given back although the work is
committed, and its process would wait half a minute, at the end, for its answer to be heard.
"""

import time
from inspect import isgenerator
from typing import Any, Final

from celery.concurrency.asynpool import AsynPool, _select  # type: ignore[attr-defined]  # its stubs leave it out
from kombu.asynchronous import Hub

SECONDS_TO_BEGIN: Final = 1.0


def drain_job_acceptance(pool: Any, hub: Hub | None) -> None:
    """Listen to the pool's processes until all they were given has begun: mostly not at all, and never for long.

    `pool` is Celery's; only that of processes with an event loop leaves anything open.
    """
    processes = getattr(pool, "_pool", None)
    if hub is not None and isinstance(processes, AsynPool):
        _hear(processes, hub)


def _hear(processes: Any, hub: Hub) -> None:
    until = time.monotonic() + SECONDS_TO_BEGIN
    while _is_open(processes) and (left := until - time.monotonic()) > 0:
        listening = {fd for fd in processes._fileno_to_outq if _hears(hub, fd)}  # noqa: SLF001
        readable, _, _ = _select(listening, timeout=min(left, 0.05))  # as Celery does: a process may go away meanwhile
        for fd in readable:
            processes.handle_result_event(fd)


def _is_open(processes: Any) -> bool:
    """Whether something was written to a process that has not said that it begins."""
    return any(job._write_to is not None and not job._accepted for job in processes._cache.values())  # noqa: SLF001


def _hears(hub: Hub, fd: int) -> bool:
    """Whether nothing of a message from there was read yet: a generator goes on in the middle of one."""
    readers: dict[int, Any] = hub.readers
    return fd in readers and not isgenerator(readers[fd][0])
