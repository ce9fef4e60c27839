# SPDX-License-Identifier: Apache-2.0
"""Timeouts of printers on the network, and the descriptions of their connection errors."""

from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPException

from tasks import network_exchange
from tasks.network_exchange import ResponseTooLargeError, WrongCertificateError


@dataclass(frozen=True)
class PrinterTimeouts:
    """Timeouts of exchanges with a printer. A print worker's lease must be longer than all exchanges for one slip."""

    exchange: timedelta = timedelta(seconds=30)
    """For a slip: connecting, sending and the response together. Small printers read as slowly as they print."""
    query: timedelta = timedelta(seconds=10)
    """For a query: connecting, sending and the response together."""
    connect: timedelta = timedelta(seconds=5)
    """For connecting, within the exchange or the query."""
    status: timedelta = timedelta(seconds=2)
    """For the status response of a label printer, within the query. Many never respond."""
    close: timedelta = timedelta(seconds=1)
    """For a label printer to close its side after a slip. Many never do; one that fails resets the connection."""


def describe_error(error: Exception) -> str:
    """A connection error as text for staff, to follow the name of the printer."""
    match error:
        case ResponseTooLargeError():
            description = "responds, but not as a printer does: its response has no end"
        case WrongCertificateError():
            description = "has a certificate that is not trusted (it is not the one of certificate=)"
        case ConnectionRefusedError():
            description = "refuses connections: is it on, and is this its port?"
        case FileNotFoundError():
            description = "is not there"
        case PermissionError():
            description = "may not be accessed"
        case OSError():
            description = network_exchange.describe_error(error)
        case HTTPException():
            description = "responds, but not as a printer does"
        case _:
            description = f"responds, but not as a printer does ({error})"
    return description
