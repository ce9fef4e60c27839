# SPDX-License-Identifier: Apache-2.0
"""The hand-over of a task to the pool. A failed hand-over is an outcome: the worker releases the slot and continues.

Celery acquires a slot of the pool, then serialises the task and writes it to a process. An exception in between keeps the
slot for ever, or ends the worker. Here it makes the task's message a dead letter.
"""

from typing import Any

from celery.apps.worker import Worker as CeleryWorker
from celery.worker import state

from workers.runtime.rejection import reject_unhandled


class Worker(CeleryWorker):
    """Celery's worker, whose hand-over to the pool has failure as an outcome."""

    def _process_task(self, req: Any) -> None:
        """Hand `req` over, with a slot acquired for it."""
        try:
            super()._process_task(req)  # type: ignore[misc]  # missing in its stubs
        except Exception as error:  # noqa: BLE001 - any error: the worker must not keep the slot
            release_slot(self, req.id)
            reject_request(req, error)


def release_slot(controller: Any, task_id: str) -> None:
    """Release the slot of a job that was not handed over, and discard the job.

    `controller`: the worker. The next waiting task starts in the next turn of the event loop, not in this call: a
    thousand tasks that fail one after the other would exceed the stack.
    """
    processes = getattr(controller.pool, "_pool", None)
    for job in list(getattr(processes, "_cache", {}).values()):
        if job.correlation_id == task_id and getattr(job, "_payload", None) is None and not job.accepted():
            job.discard()
    release = getattr(controller, "_quick_release", None)
    if release is None:
        return
    if controller.hub is not None:
        controller.hub.call_soon(release)
    else:
        release()


def reject_request(request: Any, error: Exception) -> None:
    """Make the message of `request` a dead letter, and remove the request from the worker's state."""
    if not request.acknowledged:
        reject_unhandled(request.message, request.connection_errors or (), error)
        request.acknowledged = True
        request.send_event("task-rejected", requeue=False)
    state.task_ready(request)


def discard_request(message: Any) -> None:
    """Remove the request of a rejected message from the worker's state, if Celery has stored one."""
    headers = message.headers if isinstance(message.headers, dict) else {}
    request: Any = state.requests.get(str(headers.get("id")))
    if request is not None and request.message is message:
        state.task_ready(request)
