# SPDX-License-Identifier: Apache-2.0
"""The scheduler of housekeeping, in a process beside its worker; it ends with the worker, even with a killed one."""

import os
from typing import Any

from billiard import current_process
from celery.beat import Scheduler as CeleryScheduler


class Scheduler(CeleryScheduler):
    """Celery's scheduler. Celery's own continues after its worker was killed, beside the scheduler of the next worker.

    It stores nothing on disk: sweeps that run every few seconds run again after a restart.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # None where beat is a separate program (`celery beat`).
        self._worker = getattr(current_process(), "_parent_pid", None)
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Run what is due. Ends the process when the worker is gone."""
        if self._worker is not None and os.getppid() != self._worker:
            raise SystemExit
        return super().tick(*args, **kwargs)
