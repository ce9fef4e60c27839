# SPDX-License-Identifier: Apache-2.0
"""The misbehaving network of the fault suite does what it says."""

import socket
import threading
from contextlib import closing, suppress

import pytest

from tests.proxy import Proxy


@pytest.fixture
def echo():
    """A port that gives back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection):
        with connection, suppress(OSError):
            while data := connection.recv(1000):
                connection.sendall(data)

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy(echo):
    with Proxy(lambda: echo) as proxy:
        yield proxy


def connect(proxy):
    return closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=5))


def says(connection, word):
    connection.sendall(word)
    return connection.recv(1000)


def test_it_passes_everything_on(proxy):
    """Two connections at once, each gets its own back."""
    with connect(proxy) as one, connect(proxy) as other:
        assert (says(one, b"a"), says(other, b"b")) == (b"a", b"b")


def test_a_cut_ends_a_connection_in_good_form(proxy):
    """The other side sees the end of the stream; a new connection works."""
    with connect(proxy) as one:
        says(one, b"a")
        assert proxy.cut() == 1
        assert one.recv(1000) == b""
    with connect(proxy) as another:
        assert says(another, b"b") == b"b"


def test_a_reset_tears_it(proxy):
    """The other side sees a reset; a new connection works."""
    with connect(proxy) as one:
        says(one, b"a")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            one.recv(1000)
    with connect(proxy) as another:
        assert says(another, b"b") == b"b"


def test_a_stall_holds_back_and_loses_nothing(proxy):
    """Nothing comes while it lasts; all of it comes afterwards."""
    with connect(proxy) as one:
        says(one, b"a")
        proxy.stall()
        one.sendall(b"b")
        one.settimeout(0.2)
        with pytest.raises(TimeoutError):
            one.recv(1000)
        proxy.resume()
        one.settimeout(5)
        assert one.recv(1000) == b"b"


def test_a_lost_connection_is_silent(proxy):
    """Nothing comes any more and nothing says so; a new connection works."""
    with connect(proxy) as one:
        says(one, b"a")
        proxy.drop()
        one.sendall(b"b")
        one.settimeout(0.2)
        with pytest.raises(TimeoutError):
            one.recv(1000)
        with connect(proxy) as another:
            assert says(another, b"c") == b"c"


def test_it_lets_nobody_in(proxy):
    """While it refuses, a connection is gone as soon as it is made."""
    proxy.refuse()
    with connect(proxy) as one, pytest.raises(ConnectionError):
        if not says(one, b"a"):
            raise ConnectionError
    proxy.resume()
    with connect(proxy) as another:
        assert says(another, b"b") == b"b"


def test_what_is_behind_it_may_be_away():
    """Nobody listens behind it: the connection ends, and the proxy lives."""
    with Proxy(lambda: 1) as proxy:
        for _ in range(2):
            with connect(proxy) as one, suppress(ConnectionError):
                assert one.recv(1000) == b""
