# SPDX-License-Identifier: Apache-2.0
"""A task that kills the process that runs it. A worker loads it with `-I tests.kill_task`."""

import os
import signal

from celery import shared_task

from schemas import task_message

KILL = "tests.kill"

_tasks_of = task_message.tasks_of
task_message.tasks_of = lambda queue: _tasks_of(queue) | {KILL}  # the allow-list of the envelope, wrapped from outside


@shared_task(name=KILL)
def kill(_event: object) -> None:
    """SIGKILL the process, as the kernel does without memory."""
    os.kill(os.getpid(), signal.SIGKILL)
