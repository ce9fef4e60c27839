# SPDX-License-Identifier: Apache-2.0
"""`socket://host:9100`: a label printer that accepts ZPL on a port, and never reports the result."""

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
from datetime import timedelta
from typing import Final

from tasks.network_exchange import Deadline, Exchange, connect
from tasks.printing.printers.driver import (
    PrinterInterruptedError,
    PrinterStatus,
    PrinterUnavailableError,
    describe_reasons,
)
from tasks.printing.printers.timeouts import PrinterTimeouts, describe_error

PORT: Final = 9100
SEND_BUFFER: Final = 8192
"""Bytes that may wait on our side: the fewer, the more exactly the driver knows what the printer has received."""

MAX_STATUS_SIZE: Final = 1024
"""Bytes of a status response; it has some 80."""

_POLL_INTERVAL: Final = 0.01
_STATUS_LINE: Final = re.compile(rb"\x02([^\x02\x03]*)\x03")
_FIRST_LINE_LENGTH, _SECOND_LINE_LENGTH = 12, 10


class RawPrinter:
    """A label printer on a TCP port."""

    can_repeat: Final = False
    writes_files: Final = False
    tracks_jobs: Final = False
    language: Final = "zpl"

    def __init__(self, host: str, port: int = PORT, timeouts: PrinterTimeouts | None = None) -> None:
        self._host, self._port = host, port
        self._timeouts = timeouts or PrinterTimeouts()

    def send(self, document: bytes, *, job_name: str, on_first_byte: Callable[[], None]) -> str:
        """Send the label, and wait until the printer's side has acknowledged the last byte."""
        deadline = Deadline(self._timeouts.exchange)
        with closing(self._connect(deadline)) as connection:
            on_first_byte()
            try:
                Exchange(connection, deadline, 0).sendall(document)
                connection.shutdown(socket.SHUT_WR)
                self._wait_until_acknowledged(connection, deadline)
                self._wait_until_closed(connection)
            except OSError as error:
                message = self._message(f"{describe_error(error)} while it was sent a slip")
                raise PrinterInterruptedError(message) from error
        return job_name

    def status(self) -> PrinterStatus:
        """Query the host status (`~HS`, ZPL II) over a separate connection. No response counts as ready."""
        try:
            deadline = Deadline(self._timeouts.query)
            with closing(self._connect(deadline)) as connection:
                return _parse_status(self._query_status(connection, deadline))
        except PrinterUnavailableError as error:
            return PrinterStatus(ready=False, description=str(error))

    def _connect(self, deadline: Deadline) -> socket.socket:
        try:
            connection = connect(self._host, self._port, deadline, self._timeouts.connect)
        except OSError as error:
            raise PrinterUnavailableError(self._message(describe_error(error))) from error
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        return connection

    def _query_status(self, connection: socket.socket, deadline: Deadline) -> bytes:
        """The bytes that the printer returns within the timeout, as many as a status has; possibly none."""
        response = b""
        with suppress(OSError):
            Exchange(connection, deadline, 0).sendall(b"~HS\r\n")
            status = Deadline(timedelta(seconds=deadline.remaining(self._timeouts.status)))
            buffer = bytearray(MAX_STATUS_SIZE)
            exchange = Exchange(connection, status, MAX_STATUS_SIZE)
            while len(_STATUS_LINE.findall(response)) < 3:  # noqa: PLR2004 - lines of ~HS
                count = exchange.receive_into(buffer)
                if count == 0:
                    break
                response += buffer[:count]
        return response

    def _wait_until_acknowledged(self, connection: socket.socket, deadline: Deadline) -> None:
        """Wait until the peer has acknowledged the last byte. Raises an `OSError` after an error, or at the deadline."""
        with suppress(AttributeError):  # the system has no TIOCOUTQ
            request = termios.TIOCOUTQ
            while struct.unpack("i", fcntl.ioctl(connection, request, struct.pack("i", 0)))[0]:
                if error := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, os.strerror(error))
                time.sleep(min(_POLL_INTERVAL, deadline.remaining()))

    def _wait_until_closed(self, connection: socket.socket) -> None:
        """Wait shortly for the printer to close. Raises the reset of a printer that had not read everything."""
        until = time.monotonic() + self._timeouts.close.total_seconds()
        while (left := until - time.monotonic()) > 0 and select.select([connection], [], [], left)[0]:
            if not connection.recv(4096):
                return

    def _message(self, description: str) -> str:
        return f"the printer {description} (socket://{self._host}:{self._port})"


def _parse_status(response: bytes) -> PrinterStatus:
    """Parse the response to `~HS`: three lines of fields. Read are paper out, pause, buffer full, head up, ribbon out."""
    lines = [line.decode("ascii", "replace").split(",") for line in _STATUS_LINE.findall(response)]
    if len(lines) < 2 or len(lines[0]) < _FIRST_LINE_LENGTH or len(lines[1]) < _SECOND_LINE_LENGTH:  # noqa: PLR2004
        return PrinterStatus(ready=True, description="does not report its status")
    first, second = lines[0], lines[1]
    flags = {
        "media-empty": first[1],
        "paused": first[2],
        "spool-area-full": first[5],
        "cover-open": second[2],
        "marker-supply-empty": second[3],
    }
    reasons = tuple(reason for reason, flag in flags.items() if flag.strip() == "1")
    return PrinterStatus(not reasons, describe_reasons(reasons) or "ready", reasons)
