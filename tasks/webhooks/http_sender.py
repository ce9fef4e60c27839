# SPDX-License-Identifier: Apache-2.0
"""One attempt to send a message: one HTTPS request with one deadline over the whole exchange.

The client uses the standard library: it follows no redirect, uses no proxy of the environment and keeps no cookie. A
library with a timeout for each read would let a response of one byte at a time hold the sender without an end.
"""

import socket
import ssl
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from typing import Final

from tasks.network_exchange import (
    Deadline,
    Encryption,
    Exchange,
    ResponseTooLargeError,
    connect,
    describe_error,
    encrypt,
)
from tasks.webhooks.endpoint_url import EndpointUrl, permits_address

CONNECT_WITHIN: Final = timedelta(seconds=5)
MAX_RESPONSE: Final = 65_536
"""Bytes of the response that are received; only its status and `Retry-After` are used."""
MAX_BODY: Final = 4_096
"""Bytes of the response's body that are read, so that a short one ends in order."""

_REDIRECTS: Final = range(300, 400)


@dataclass(frozen=True)
class Response:
    """The status of a response, and the pause that it asks for."""

    status: int
    retry_after: str | None = None

    @property
    def description(self) -> str:
        """The response as text for operators."""
        redirect = " (a redirect, which is not followed: register the new URL)" if self.status in _REDIRECTS else ""
        return f"responds with HTTP {self.status}{redirect}"


class DeliveryError(Exception):
    """There is no response. The text is the cause, to follow the name of the endpoint."""


class _ForbiddenAddressError(OSError):
    """The host resolves to an address to which nothing is sent."""


def send(url: EndpointUrl, headers: Mapping[str, str], body: bytes, timeout: timedelta) -> Response:
    """POST `body`, and return the response. Raises `DeliveryError` when there is none within `timeout`."""
    deadline = Deadline(timeout)
    try:
        with closing(_connect(url, deadline)) as connection:
            return _exchange(Exchange(connection, deadline, MAX_RESPONSE), url, headers, body)
    except (OSError, HTTPException, UnicodeError) as error:
        raise DeliveryError(_describe(error)) from error


def _connect(url: EndpointUrl, deadline: Deadline) -> socket.socket:
    connection = connect(url.host, url.port, deadline, CONNECT_WITHIN)
    if not permits_address(connection.getpeername()[0], is_encrypted=url.is_encrypted):
        connection.close()
        raise _ForbiddenAddressError
    if not url.is_encrypted:
        return connection
    return encrypt(connection, Encryption(ssl.create_default_context()), url.host, deadline)


def _exchange(exchange: Exchange, url: EndpointUrl, headers: Mapping[str, str], body: bytes) -> Response:
    http = HTTPConnection(url.host, url.port)
    http.sock = exchange  # connected already; it ends every operation at the deadline
    # A receiver that refuses may close before it has read all of the message. Its response can still be read.
    with suppress(BrokenPipeError, ConnectionResetError):
        http.request(
            "POST",
            url.target,
            body,
            {
                "Host": url.authority,
                "Content-Type": "application/json",
                "User-Agent": "bookdrop",
                "Connection": "close",
                **headers,
            },
        )
    response = http.getresponse()
    found = Response(response.status, response.getheader("Retry-After"))
    with suppress(OSError, HTTPException):
        response.read(MAX_BODY)
    return found


def _describe(error: Exception) -> str:
    match error:
        case _ForbiddenAddressError():
            description = (
                "resolves to an address to which no message is sent: a public one without https, or a local link"
            )
        case ResponseTooLargeError():
            description = "sends a response without an end"
        case UnicodeError():
            description = "has a host name that does not resolve"
        case OSError():
            description = describe_error(error)
        case _:
            description = "responds, but not as an HTTP server does"
    return description
