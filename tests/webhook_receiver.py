# SPDX-License-Identifier: Apache-2.0
"""A receiver of webhooks for tests: a real HTTP server in a thread, which verifies as Standard Webhooks describes.

It reads the specification independently: nothing of `schemas.webhook_signature` is used here.
"""

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOLERANCE_SECONDS = 300


def verify(secret: str, headers: dict[str, str], body: bytes, now: float) -> bool:
    """True if one of the signatures is that of `secret`, and the time of the attempt is within five minutes of `now`."""
    key = base64.b64decode(secret.split("_", 1)[1])
    sent_at = int(headers["webhook-timestamp"])
    content = headers["webhook-id"].encode() + b"." + str(sent_at).encode() + b"." + body
    expected = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    given = [part.split(",", 1) for part in headers["webhook-signature"].split(" ")]
    return abs(now - sent_at) <= TOLERANCE_SECONDS and any(
        version == "v1" and hmac.compare_digest(signature, expected) for version, signature in given
    )


@dataclass(frozen=True)
class Received:
    """A request that the receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Respond = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Receiver:
    """A receiver of webhooks: the received messages, and the next response."""

    url: str = ""
    respond: Respond = field(default_factory=lambda: status(204))
    received: list[Received] = field(default_factory=list)
    secret: str | None = None
    """When it is set, a message that does not verify gets 401 and is not stored."""
    clock: Callable[[], float] = time.time
    """The receiver's time, in seconds since 1970."""

    @property
    def ids(self) -> list[str]:
        return [each.headers["webhook-id"] for each in self.received]

    @property
    def types(self) -> list[str]:
        return [each.json["type"] for each in self.received]


def status(code: int, **headers: str) -> Respond:
    """Respond with a status and no body."""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return respond


def silent(handler: BaseHTTPRequestHandler) -> None:
    """Do not respond; wait until the sender closes."""
    with suppress(OSError):
        handler.connection.recv(1)


def dripping(handler: BaseHTTPRequestHandler) -> None:
    """Send a header that has no end, one byte at a time."""
    with suppress(OSError):
        handler.connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        while True:
            handler.connection.sendall(b"a")
            time.sleep(0.02)


def endless_headers(handler: BaseHTTPRequestHandler) -> None:
    """Send a header without an end as fast as possible."""
    with suppress(OSError):
        handler.connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            handler.connection.sendall(b"X-Header: " + b"a" * 30_000 + b"\r\n")


def huge_body(handler: BaseHTTPRequestHandler) -> None:
    """Acknowledge, with a body that has no end."""
    with suppress(OSError):
        handler.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
        while True:
            handler.connection.sendall(b"a" * 65_536)


def not_http(handler: BaseHTTPRequestHandler) -> None:
    """Respond as another protocol does."""
    handler.connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


@contextmanager
def running(wrap: Callable[[socket.socket], socket.socket] | None = None) -> Iterator[Receiver]:
    """Run a receiver on the loopback address. `wrap` encrypts its socket."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if receiver.secret is not None and not verify(receiver.secret, headers, body, receiver.clock()):
                status(401)(self)
                return
            receiver.received.append(Received(self.path, headers, body))
            receiver.respond(self)
            self.close_connection = True

        def log_message(self, *args: Any) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A sender that closes is no error."""

    server = Server(("127.0.0.1", 0), Handler)
    scheme = "http"
    if wrap is not None:
        server.socket = wrap(server.socket)
        scheme = "https"
    receiver.url = f"{scheme}://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
