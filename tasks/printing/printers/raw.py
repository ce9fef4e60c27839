# SPDX-License-Identifier: Apache-2.0
"""`socket://host:9100`: a label printer that takes ZPL as it comes, and never says what became of it."""

import fcntl
import os
import re
import select
import socket
import struct
import termios
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Final

from tasks.printing.printers.driver import (
    PrinterInterruptedError,
    PrinterStatus,
    PrinterUnavailableError,
    in_words,
)
from tasks.printing.printers.timeouts import PrinterTimeouts, why

PORT: Final = 9100
BUFFER: Final = 8192
"""Bytes that may wait on our side: the less, the better is known what the printer took."""

CLOSING: Final = 1.0
"""Seconds for the printer to close its side too. Many never do; one that fails resets the connection."""

_POLL: Final = 0.01
_REPLY: Final = re.compile(rb"\x02([^\x02\x03]*)\x03")
_FIRST_LINE_LENGTH, _SECOND_LINE_LENGTH = 12, 10


class RawPrinter:
    """A label printer behind a port."""

    can_repeat: Final = False
    knows_its_jobs: Final = False
    language: Final = "zpl"

    def __init__(self, host: str, port: int = PORT, patience: PrinterTimeouts | None = None) -> None:
        self._host, self._port = host, port
        self._patience = patience or PrinterTimeouts()

    def send(self, document: bytes, *, job_name: str, on_first_byte: Callable[[], None]) -> str:
        """Send the label, and wait until the printer's side has taken the last byte of it."""
        with closing(self._connect()) as printer:
            on_first_byte()
            until = time.monotonic() + self._patience.transfer.total_seconds()
            try:
                printer.settimeout(self._patience.transfer.total_seconds())
                printer.sendall(document)
                printer.shutdown(socket.SHUT_WR)
                self._wait_until_taken(printer, until)
                self._wait_until_closed(printer)
            except OSError as error:
                raise PrinterInterruptedError(self._said(f"{why(error)} while it was sent a slip")) from error
        return job_name

    def status(self) -> PrinterStatus:
        """Host status (`~HS`, ZPL II), over a connection of its own. No answer is taken for ready."""
        try:
            with closing(self._connect()) as printer:
                return _read_status(self._ask(printer))
        except PrinterUnavailableError as error:
            return PrinterStatus(ready=False, words=str(error))

    def _connect(self) -> socket.socket:
        try:
            printer = socket.create_connection((self._host, self._port), self._patience.connect.total_seconds())
        except OSError as error:
            raise PrinterUnavailableError(self._said(why(error))) from error
        printer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        return printer

    def _ask(self, printer: socket.socket) -> bytes:
        """What comes back within the time for it; perhaps nothing."""
        printer.settimeout(self._patience.status.total_seconds())
        said = b""
        with suppress(OSError):
            printer.sendall(b"~HS\r\n")
            until = time.monotonic() + self._patience.status.total_seconds()
            while len(_REPLY.findall(said)) < 3 and time.monotonic() < until:  # noqa: PLR2004 - lines of a reply
                part = printer.recv(1024)
                if not part:
                    break
                said += part
        return said

    def _wait_until_taken(self, printer: socket.socket, until: float) -> None:
        """Wait for the last byte to be acknowledged. Raises an `OSError` when it was not, or not in time."""
        with suppress(AttributeError):  # a system that cannot tell
            request = termios.TIOCOUTQ
            while struct.unpack("i", fcntl.ioctl(printer, request, struct.pack("i", 0)))[0]:
                if broken := printer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(broken, os.strerror(broken))
                if time.monotonic() > until:
                    raise TimeoutError
                time.sleep(_POLL)

    @staticmethod
    def _wait_until_closed(printer: socket.socket) -> None:
        """Give the printer a moment to close; raises what it closed with when it had not read all."""
        until = time.monotonic() + CLOSING
        while (left := until - time.monotonic()) > 0 and select.select([printer], [], [], left)[0]:
            if not printer.recv(4096):
                return

    def _said(self, words: str) -> str:
        return f"the printer {words} (socket://{self._host}:{self._port})"


def _read_status(said: bytes) -> PrinterStatus:
    """Read the reply to `~HS`: three lines of fields, of which paper out, pause, head up and ribbon out matter."""
    lines = [line.decode("ascii", "replace").split(",") for line in _REPLY.findall(said)]
    if len(lines) < 2 or len(lines[0]) < _FIRST_LINE_LENGTH or len(lines[1]) < _SECOND_LINE_LENGTH:  # noqa: PLR2004
        return PrinterStatus(ready=True, words="does not say how it is")
    first, second = lines[0], lines[1]
    flags = {
        "media-empty": first[1],
        "paused": first[2],
        "spool-area-full": first[5],
        "cover-open": second[2],
        "marker-supply-empty": second[3],
    }
    reasons = tuple(reason for reason, flag in flags.items() if flag.strip() == "1")
    return PrinterStatus(not reasons, in_words(reasons) or "ready", reasons)
