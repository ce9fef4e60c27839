# SPDX-License-Identifier: Apache-2.0
"""The schedule of housekeeping, in a process beside its worker that ends when the worker does, however it ended."""

import os
from typing import Any

from billiard import current_process
from celery.beat import Scheduler as CeleryScheduler


class Scheduler(CeleryScheduler):
    """Celery's scheduler. When its worker was killed it would go on for ever, beside the next one's.

    It keeps nothing on the disk: what is swept every few seconds is swept again after a restart.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # None where beat is a program of its own (`celery beat`).
        self._worker = getattr(current_process(), "_parent_pid", None)
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Do what is due. Ends the process when its worker is gone."""
        if self._worker is not None and os.getppid() != self._worker:
            raise SystemExit
        return super().tick(*args, **kwargs)
