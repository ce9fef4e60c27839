# SPDX-License-Identifier: Apache-2.0
"""What every printer can be asked, and how it fails."""

from collections.abc import Callable
from typing import Protocol


class PrinterError(Exception):
    """The slip did not get through. The text says why, for staff."""


class PrinterUnavailableError(PrinterError):
    """No byte had left: the slip can be sent again."""


class PrinterInterruptedError(PrinterError):
    """A byte may have left: nobody knows what the printer has."""


class WrongPrinterUriError(PrinterError):
    """The printer's URI cannot be used."""


class PrinterDriver(Protocol):
    """One printer, ready to be sent to."""

    can_repeat: bool
    """Sending the same slip again cannot make a second one."""
    knows_its_jobs: bool
    """It can say later what became of a slip it accepted; else `accepted` is all that will ever be known."""
    language: str
    """What it takes: `pdf` or `zpl`."""

    def send(self, document: bytes, *, job_name: str, on_first_byte: Callable[[], None]) -> str:
        """Send `document` as the job `job_name` and give what the printer calls it.

        Calls `on_first_byte` once, before anything leaves. Raises `PrinterUnavailableError` while no byte had
        left, `PrinterInterruptedError` after that.
        """
