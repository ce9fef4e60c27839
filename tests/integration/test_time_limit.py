# SPDX-License-Identifier: Apache-2.0
"""Time limits of tasks."""

from tasks.printing.claim import LEASE
from tasks.printing.handler import LONGEST_RUN
from tasks.printing.printers.timeouts import PrinterTimeouts
from tasks.printing.task import TIME_LIMIT, follow_slip, print_slip
from workers.app import celery_settings


def test_time_limit_is_a_hard_limit():
    """The hard limit ends the process, which releases every lock; a soft limit's exception may keep them."""
    settings = celery_settings()

    assert settings["task_time_limit"] < settings["broker_transport_options"]["visibility_timeout"]
    assert "task_soft_time_limit" not in settings


def test_time_limit_covers_a_slow_printer():
    """The last slip of a print task may use all printer timeouts, whatever the visibility timeout is."""
    timeouts = PrinterTimeouts()
    one_slip = timeouts.exchange + timeouts.close

    assert one_slip < LEASE
    assert (LONGEST_RUN + one_slip).total_seconds() < TIME_LIMIT
    assert print_slip.time_limit == follow_slip.time_limit == TIME_LIMIT
