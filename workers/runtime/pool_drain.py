# SPDX-License-Identifier: Apache-2.0
"""Wait for pool processes to accept jobs already handed to them.

When Celery closes its broker connection (shutdown or reconnect), it discards jobs that no pool process has accepted yet.
A job that was handed over a moment ago runs anyway. The broker would redeliver its message although the work is
committed. At shutdown its process would wait half a minute for the worker to read the result.
"""

import time
from inspect import isgenerator
from typing import Any, Final

from celery.concurrency.asynpool import AsynPool, _select  # type: ignore[attr-defined]  # its stubs leave it out
from kombu.asynchronous import Hub

ACCEPTANCE_TIMEOUT_SECONDS: Final = 1.0


def drain_job_acceptance(pool: Any, hub: Hub | None) -> None:
    """Read the messages of the pool's processes until each job is accepted, for `ACCEPTANCE_TIMEOUT_SECONDS` at most.

    Returns at once in the common case, in which all jobs are accepted. `pool` is Celery's; only the prefork pool with an
    event loop has jobs that are not accepted.
    """
    processes = getattr(pool, "_pool", None)
    if hub is not None and isinstance(processes, AsynPool):
        _read_until_accepted(processes, hub)


def _read_until_accepted(processes: Any, hub: Hub) -> None:
    deadline = time.monotonic() + ACCEPTANCE_TIMEOUT_SECONDS
    while _has_unaccepted_jobs(processes) and (remaining := deadline - time.monotonic()) > 0:
        pipes = {fd for fd in processes._fileno_to_outq if _is_at_message_start(hub, fd)}  # noqa: SLF001
        # Celery's own select, because a process may exit and close its pipe in between.
        readable, _, _ = _select(pipes, timeout=min(remaining, 0.05))
        for fd in readable:
            processes.handle_result_event(fd)


def _has_unaccepted_jobs(processes: Any) -> bool:
    """Return True if a job was written to a process that has not reported its acceptance."""
    return any(job._write_to is not None and not job._accepted for job in processes._cache.values())  # noqa: SLF001


def _is_at_message_start(hub: Hub, fd: int) -> bool:
    """Return True unless the hub has read a part of a message from `fd`: then a generator holds the part."""
    readers: dict[int, Any] = hub.readers
    return fd in readers and not isgenerator(readers[fd][0])
