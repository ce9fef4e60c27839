# SPDX-License-Identifier: Apache-2.0
"""A task whose message kills every process that takes it in hand. A worker gets it with `-I tests.killing`."""

import os
import signal

from celery import shared_task

KILL = "tests.kill"


@shared_task(name=KILL)
def kill(_event: object) -> None:
    """Die, as by a lack of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
