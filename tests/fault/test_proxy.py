# SPDX-License-Identifier: Apache-2.0
"""The faults of the proxy that the fault suite injects."""

import socket
import threading
from contextlib import closing, suppress

import pytest

from tests.proxy import Proxy


@pytest.fixture
def echo():
    """The port of a server that returns what it receives."""
    listener = socket.create_server(("127.0.0.1", 0))

    def respond(connection):
        with connection, suppress(OSError):
            while data := connection.recv(1000):
                connection.sendall(data)

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=respond, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy(echo):
    with Proxy(lambda: echo) as proxy:
        yield proxy


def connect(proxy):
    return closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=60))


def send(connection, data):
    """Send data; return the response."""
    connection.sendall(data)
    return connection.recv(1000)


def test_proxy_forwards_each_connection_separately(proxy):
    """Two connections at once each receive their own data."""
    with connect(proxy) as one, connect(proxy) as other:
        assert (send(one, b"a"), send(other, b"b")) == (b"a", b"b")


def test_cut_closes_connections(proxy):
    """The client sees the end of the stream; a new connection works."""
    with connect(proxy) as one:
        send(one, b"a")
        assert proxy.cut() == 1
        assert one.recv(1000) == b""
    with connect(proxy) as another:
        assert send(another, b"b") == b"b"


def test_reset_resets_connections(proxy):
    """The client sees a reset; a new connection works."""
    with connect(proxy) as one:
        send(one, b"a")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            one.recv(1000)
    with connect(proxy) as another:
        assert send(another, b"b") == b"b"


def test_stall_delays_data_and_loses_none(proxy):
    """No data arrives during a stall; all of it arrives afterwards."""
    with connect(proxy) as one:
        send(one, b"a")
        proxy.stall()
        one.sendall(b"b")
        one.settimeout(0.2)
        with pytest.raises(TimeoutError):
            one.recv(1000)
        proxy.resume()
        one.settimeout(60)
        assert one.recv(1000) == b"b"


def test_dropped_connection_stays_open_without_data(proxy):
    """A dropped connection delivers no data and no end of the stream; a new connection works."""
    with connect(proxy) as one:
        send(one, b"a")
        proxy.drop()
        one.sendall(b"b")
        one.settimeout(0.2)
        with pytest.raises(TimeoutError):
            one.recv(1000)
        with connect(proxy) as another:
            assert send(another, b"c") == b"c"


def test_refused_connection_ends_at_once(proxy):
    """While the proxy refuses, a connection ends as soon as it is accepted; afterwards a new one works."""
    proxy.refuse()
    with connect(proxy) as one, pytest.raises(ConnectionError):
        if not send(one, b"a"):
            raise ConnectionError
    proxy.resume()
    with connect(proxy) as another:
        assert send(another, b"b") == b"b"


def test_unreachable_upstream_ends_the_connection():
    """Without a listener behind the proxy a connection ends, and the proxy continues."""
    with Proxy(lambda: 1) as proxy:
        for _ in range(2):
            with connect(proxy) as one, suppress(ConnectionError):
                assert one.recv(1000) == b""
