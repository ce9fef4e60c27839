# SPDX-License-Identifier: Apache-2.0
"""From a printer's URI to its driver."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tasks.printing.printers.driver import PrinterDriver, WrongPrinterUriError
from tasks.printing.printers.spool import SpoolPrinter

SCHEMES = ("spool",)


def open_printer(uri: str) -> PrinterDriver:
    """The driver for `uri`; nothing is connected yet.

    Raises `WrongPrinterUriError` with words on what would be right.
    """
    parts = urlsplit(uri)
    match parts.scheme:
        case "spool" if parts.path.startswith("/") and not parts.netloc and parts.path != "/":
            return SpoolPrinter(Path(unquote(parts.path)))
        case "spool":
            raise WrongPrinterUriError(f"{uri} names no folder: write spool:///folder/of/slips")
        case _:
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise WrongPrinterUriError(f"{uri} is no printer that can be used; known kinds: {known}")
