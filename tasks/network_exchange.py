# SPDX-License-Identifier: Apache-2.0
"""One exchange with a printer or another system on the network: one deadline over connecting, sending and all responses.

The timeout of a socket applies to each operation. A peer that sends a byte before each timeout holds a worker without an
end. Here each operation gets the time that is left of the exchange.
"""

import errno
import io
import os
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

_CHUNK: Final = 65_536

_DESCRIPTIONS: Final = {
    errno.ECONNREFUSED: "refuses connections",
    errno.EHOSTUNREACH: "cannot be reached on the network",
    errno.ENETUNREACH: "cannot be reached on the network",
    errno.ECONNRESET: "closed the connection",
    errno.EPIPE: "closed the connection",
    errno.ENOTCONN: "closed the connection",
}


class ResponseTooLargeError(OSError):
    """The peer sent more bytes than a response may have."""


class WrongCertificateError(OSError):
    """The peer's certificate is none of the pinned ones."""


@dataclass(frozen=True)
class Encryption:
    """TLS with a peer."""

    context: ssl.SSLContext
    pinned: frozenset[bytes] = frozenset()
    """Certificates in DER. Unless it is empty, the peer must present one of them exactly, under any host name."""


class Deadline:
    """The end of an exchange, on the monotonic clock."""

    def __init__(self, duration: timedelta) -> None:
        self._ends = time.monotonic() + duration.total_seconds()

    def remaining(self, at_most: timedelta | None = None) -> float:
        """Seconds that are left, at most `at_most`. Raises `TimeoutError` when none are left."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the exchange has taken too long")
        return left if at_most is None else min(left, at_most.total_seconds())


class Exchange:
    """A connection whose operations all end at one deadline, and that receives `max_bytes` at most.

    It has the methods that `http.client` uses of a socket.
    """

    def __init__(self, connection: socket.socket, deadline: Deadline, max_bytes: int) -> None:
        self.connection = connection
        self._deadline = deadline
        self._left_bytes = max_bytes

    def sendall(self, data: bytes) -> None:
        """Send all of `data`. Raises `TimeoutError` at the deadline, else the errors of the socket."""
        view = memoryview(data)
        while view:
            self.connection.settimeout(self._deadline.remaining())
            view = view[self.connection.send(view[:_CHUNK]) :]

    def receive_into(self, buffer: bytearray | memoryview) -> int:
        """Receive into `buffer`; return the number of bytes, 0 at the end of the stream.

        Raises `TimeoutError` at the deadline, `ResponseTooLargeError` after too many bytes.
        """
        self.connection.settimeout(self._deadline.remaining())
        count = self.connection.recv_into(buffer)
        self._left_bytes -= count
        if self._left_bytes < 0:
            raise ResponseTooLargeError
        return count

    def makefile(self, _mode: Literal["rb"]) -> io.BufferedReader:
        """A buffered stream of the responses."""
        return io.BufferedReader(_ResponseStream(self))

    def close(self) -> None:
        """Do nothing: `http.client` closes a socket while its response is still read. The caller closes it."""


class _ResponseStream(io.RawIOBase):
    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._exchange.receive_into(buffer)


def connect(host: str, port: int, deadline: Deadline, at_most: timedelta) -> socket.socket:
    """Connect to the first address of `host` that accepts, within `at_most` for all of them together.

    The resolver has its own timeouts, some 30 seconds at most. Raises `OSError`.
    """
    connecting = Deadline(at_most)
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(deadline.remaining(timedelta(seconds=connecting.remaining())))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            failure = failure or error
        else:
            return connection
    raise failure or OSError("no address")


def encrypt(connection: socket.socket, encryption: Encryption, host: str, deadline: Deadline) -> ssl.SSLSocket:
    """TLS over `connection`. The handshake ends at the deadline. Closes the connection after an error: `OSError`."""
    try:
        connection.settimeout(deadline.remaining())
        encrypted = encryption.context.wrap_socket(connection, server_hostname=host)
    except BaseException:
        connection.close()
        raise
    if encryption.pinned and encrypted.getpeercert(binary_form=True) not in encryption.pinned:
        encrypted.close()
        raise WrongCertificateError
    return encrypted


def describe_error(error: OSError) -> str:
    """An error of an exchange as text for staff, to follow the name of the peer."""
    match error:
        case TimeoutError():
            return "did not respond in time"
        case socket.gaierror():
            return "has a name that the network does not resolve"
        case ssl.SSLCertVerificationError():
            return f"has a certificate that is not trusted ({error.verify_message})"
        case ssl.SSLError():
            return "does not support our encryption"
        case OSError(errno=int(number)):
            return _DESCRIPTIONS.get(number, os.strerror(number))
        case _:
            return "closed the connection"
