# SPDX-License-Identifier: Apache-2.0
"""Create the driver for a printer's URI."""

import os
import re
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from tasks.network_exchange import Encryption
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

_PEM: Final = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
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
            encryption = _encryption(parts) if kind == "ipps" else None
            return IppPrinter(network_address(parts.hostname, port, parts.path, encryption), timeouts)
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


def _encryption(parts: SplitResult) -> Encryption:
    """The TLS settings of an `ipps://` printer: which certificate it must have, and whether for its host name.

    Without an option and with `ca=FILE` an authority must have signed the certificate for the printer's host name.
    `certificate=FILE` names the certificate itself, because printers sign their own, often for a name that is not
    theirs: the comparison of the whole certificate takes the place of that of the name. `certificate=any` encrypts
    without authentication.
    """
    options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=False)
    if set(options) - {"certificate", "ca"}:
        raise WrongPrinterUriError(f"of {', '.join(sorted(options))} only certificate= and ca= are known")
    match options.get("certificate", []), options.get("ca", []):
        case [], []:
            return Encryption(ssl.create_default_context())
        case [], [file] if file.startswith("/"):
            return Encryption(_trusting(file))
        case ["any"], []:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return Encryption(context)
        case [file], [] if file.startswith("/"):
            context = _trusting(file)
            context.check_hostname = False
            context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
            blocks = _PEM.findall(Path(file).read_text(encoding="ascii", errors="replace"))
            return Encryption(context, frozenset(map(ssl.PEM_cert_to_DER_cert, blocks)))
        case _:
            raise WrongPrinterUriError(
                "certificate= is a file's whole path, or the word any; or ca= is a file's whole path"
            )


def _trusting(file: str) -> ssl.SSLContext:
    """A TLS context that trusts the certificates of `file` and no others."""
    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise WrongPrinterUriError(f"{file} is not a readable certificate") from error
