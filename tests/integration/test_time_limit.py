# SPDX-License-Identifier: Apache-2.0
"""How a task that takes too long is ended."""

from tasks.printing.claim import LEASE
from tasks.printing.handler import LONGEST_RUN
from tasks.printing.printers.timeouts import PrinterTimeouts
from tasks.printing.task import TIME_LIMIT, follow_slip, print_slip
from workers.app import celery_settings


def test_nothing_is_raised_amid_a_transaction():
    """There is a hard limit, whose end of the process lets go of every lock, and no soft one, which may keep them."""
    settings = celery_settings()

    assert settings["task_time_limit"] < settings["broker_transport_options"]["visibility_timeout"]
    assert "task_soft_time_limit" not in settings


def test_a_slow_printer_has_its_time():
    """The last slip of a shift may take all of a printer's patience, whatever the visibility timeout is."""
    patience = PrinterTimeouts()
    one_slip = patience.connect + 2 * patience.transfer

    assert one_slip < LEASE
    assert (LONGEST_RUN + one_slip).total_seconds() < TIME_LIMIT
    assert print_slip.time_limit == follow_slip.time_limit == TIME_LIMIT
