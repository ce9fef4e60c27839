# SPDX-License-Identifier: Apache-2.0
"""A task whose message kills every process that takes it in hand. A worker gets it with `-I tests.killing`."""

import os
import signal

from celery import shared_task

from schemas import task_message

KILL = "tests.kill"

_tasks_of = task_message.tasks_of
task_message.tasks_of = lambda queue: _tasks_of(queue) | {KILL}  # the allow-list of the envelope, wrapped from outside


@shared_task(name=KILL)
def kill(_event: object) -> None:
    """Die, as by a lack of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
