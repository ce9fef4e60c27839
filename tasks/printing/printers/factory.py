# SPDX-License-Identifier: Apache-2.0
"""From a printer's URI to its driver."""

import os
import re
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from tasks.printing.printers.cups import queue_address
from tasks.printing.printers.driver import JobTrackingDriver, PrinterDriver, WrongPrinterUriError
from tasks.printing.printers.ipp import IppPrinter, network_address
from tasks.printing.printers.raw import PORT, RawPrinter
from tasks.printing.printers.spool import SpoolPrinter
from tasks.printing.printers.timeouts import PrinterTimeouts

KINDS: Final = {
    "spool": "spool:///folder/of/slips",
    "ipp": "ipp://host/ipp/print",
    "ipps": "ipps://host/ipp/print",
    "socket": "socket://host:9100",
    "lp": "lp://queue",
}
"""A right URI of each kind."""

_LACKING: Final = {"spool": "folder", "lp": "queue", "socket": "host and port alone", "ipp": "host", "ipps": "host"}

_QUEUE: Final = re.compile(r"[^\s/#?@:]{1,127}")


def open_printer(uri: str, patience: PrinterTimeouts | None = None) -> PrinterDriver:
    """The driver for `uri`; nothing is connected yet. It is a `JobTrackingDriver` when it `knows_its_jobs`.

    Raises `WrongPrinterUriError` with words on what would be right.
    """
    parts, port = _split(uri)
    match parts.scheme:
        case "spool" if parts.path.startswith("/") and not parts.netloc and parts.path != "/":
            return SpoolPrinter(Path(unquote(parts.path)))
        case "lp" if _QUEUE.fullmatch(unquote(parts.netloc)) and parts.path in {"", "/"}:
            return IppPrinter(queue_address(parts.netloc, os.environ), patience)
        case "socket" if parts.hostname and parts.path in {"", "/"}:
            return RawPrinter(parts.hostname, port or PORT, patience)
        case "ipp" | "ipps" as kind if parts.hostname:
            trusted = _certificates(parts) if kind == "ipps" else None
            return IppPrinter(network_address(parts.hostname, port, parts.path, trusted), patience)
        case kind:
            raise WrongPrinterUriError(f"{uri} names no {_LACKING[kind]}: write {KINDS[kind]}")


def _split(uri: str) -> tuple[SplitResult, int | None]:
    """The parts of a URI of a known kind, and its port."""
    try:
        parts = urlsplit(uri)
        port = parts.port if parts.scheme != "lp" else None
    except ValueError as error:
        raise WrongPrinterUriError(f"{uri} is no printer: {error}") from error
    kind = parts.scheme
    if kind not in KINDS:
        known = ", ".join(f"{scheme}://" for scheme in KINDS)
        raise WrongPrinterUriError(f"{uri} is no printer that can be used; known kinds: {known}")
    if parts.username is not None:
        raise WrongPrinterUriError(f"{kind}:// takes no user and no password: write {KINDS[kind]}")
    if parts.fragment or (parts.query and kind != "ipps"):
        raise WrongPrinterUriError(f"{kind}:// takes nothing after the path: write {KINDS[kind]}")
    return parts, port


def keeper(driver: PrinterDriver) -> JobTrackingDriver | None:
    """The same printer, if it can be asked what became of its jobs."""
    return driver if isinstance(driver, IppPrinter) else None


def _certificates(parts: SplitResult) -> ssl.SSLContext:
    """Whom an `ipps://` printer must be: known to this machine, or what its `certificate=` says.

    A file means that very certificate (printers sign their own); `any` encrypts without knowing to whom.
    """
    given = parse_qs(parts.query, keep_blank_values=True, strict_parsing=False)
    if set(given) - {"certificate"}:
        raise WrongPrinterUriError(f"of {', '.join(sorted(given))} only certificate= is known")
    match given.get("certificate", []):
        case []:
            return ssl.create_default_context()
        case ["any"]:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        case [file] if file.startswith("/"):
            try:
                context = ssl.create_default_context(cafile=file)
            except (OSError, ssl.SSLError) as error:
                raise WrongPrinterUriError(f"{file} is no certificate that can be read") from error
            context.check_hostname = False
            return context
        case _:
            raise WrongPrinterUriError("certificate= is a file's whole path, or the word any")
