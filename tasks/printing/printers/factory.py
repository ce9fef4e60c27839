# SPDX-License-Identifier: Apache-2.0
"""Create the driver for a printer's URI."""

import os
import re
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from tasks.printing.printers.cups import queue_address
from tasks.printing.printers.driver import PrinterDriver, WrongPrinterUriError
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
"""A valid URI of each kind."""

_REQUIRED: Final = {"spool": "folder", "lp": "queue", "socket": "host and port alone", "ipp": "host", "ipps": "host"}

_QUEUE: Final = re.compile(r"[^\s/#?@:]{1,127}")


def open_printer(uri: str, timeouts: PrinterTimeouts | None = None) -> PrinterDriver:
    """Create the driver for `uri`. It does not connect. It is a `JobTrackingDriver` if `tracks_jobs` is true.

    Raises `WrongPrinterUriError`, whose text contains a valid URI.
    """
    parts, port = _split(uri)
    match parts.scheme:
        case "spool" if parts.path.startswith("/") and not parts.netloc and parts.path != "/":
            return SpoolPrinter(Path(unquote(parts.path)))
        case "lp" if _QUEUE.fullmatch(unquote(parts.netloc)) and parts.path in {"", "/"}:
            return IppPrinter(queue_address(parts.netloc, os.environ), timeouts)
        case "socket" if parts.hostname and parts.path in {"", "/"}:
            return RawPrinter(parts.hostname, port or PORT, timeouts)
        case "ipp" | "ipps" as kind if parts.hostname:
            trusted = _certificates(parts) if kind == "ipps" else None
            return IppPrinter(network_address(parts.hostname, port, parts.path, trusted), timeouts)
        case kind:
            raise WrongPrinterUriError(f"{uri} names no {_REQUIRED[kind]}: write {KINDS[kind]}")


def _split(uri: str) -> tuple[SplitResult, int | None]:
    """The parts of a URI of a known kind, and its port."""
    try:
        parts = urlsplit(uri)
        port = parts.port if parts.scheme != "lp" else None
    except ValueError as error:
        raise WrongPrinterUriError(f"{uri} is not a valid printer URI: {error}") from error
    kind = parts.scheme
    if kind not in KINDS:
        known = ", ".join(f"{scheme}://" for scheme in KINDS)
        raise WrongPrinterUriError(f"{uri} is not the URI of a supported printer; known kinds: {known}")
    if parts.username is not None:
        raise WrongPrinterUriError(f"{kind}:// takes no user and no password: write {KINDS[kind]}")
    if parts.fragment or (parts.query and kind != "ipps"):
        raise WrongPrinterUriError(f"{kind}:// takes nothing after the path: write {KINDS[kind]}")
    return parts, port


def _certificates(parts: SplitResult) -> ssl.SSLContext:
    """The TLS context of an `ipps://` printer: this machine's certificate authorities, or its `certificate=`.

    A file trusts that certificate alone, because printers sign their own; `any` encrypts without authentication.
    """
    options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=False)
    if set(options) - {"certificate"}:
        raise WrongPrinterUriError(f"of {', '.join(sorted(options))} only certificate= is known")
    match options.get("certificate", []):
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
                raise WrongPrinterUriError(f"{file} is not a readable certificate") from error
            context.check_hostname = False
            return context
        case _:
            raise WrongPrinterUriError("certificate= is a file's whole path, or the word any")
