# SPDX-License-Identifier: Apache-2.0
"""What a worker tells of itself: once, and again over the next connection; never by waiting for the broker."""

from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from celery.events import get_exchange
from kombu import Connection, Queue

from tests.proxy import Proxy
from workers.app import app
from workers.runtime import event_dispatcher


@pytest.mark.parametrize("whose", ["read", "write"])
def test_no_answer_is_waited_for_without_an_end(whose, rabbitmq, monkeypatch):
    """A worker's connections, lost without a word while it waits to hear that it may begin: it finds out, and connects anew."""
    for seconds in ("RESPONSE_TIMEOUT_SECONDS", "DECLARE_TIMEOUT_SECONDS"):
        monkeypatch.setattr(event_dispatcher, seconds, 1)

    with Proxy(lambda: rabbitmq.port) as network:

        def as_told(**_):
            options = {"confirm_publish": True, "connect_timeout": 3}
            return Connection(rabbitmq.url_through(network.port), transport_options=options)

        consumer = SimpleNamespace(
            app=SimpleNamespace(connection_for_read=as_told, connection_for_write=as_told),
            ensure_connected=lambda connection: connection,
        )
        with getattr(event_dispatcher.NonBlockingConsumer, f"connection_for_{whose}")(consumer) as connection:
            channel = connection.default_channel
            channel.basic_publish(channel.prepare_message(b"no receipt is waited for"), "", "nowhere")
            network.drop()
            channel.basic_publish(channel.prepare_message(b"nor here"), "", "nowhere")
            with pytest.raises(TimeoutError):
                channel.basic_qos(0, 5, False)
            connection.collect()


def test_what_cannot_be_told_is_kept_for_the_next_connection(rabbitmq):
    """Celery sends a heartbeat with the order to try again until it is told, in the loop that does all of a worker's work."""

    def dispatcher(connection):
        return closing(app.events.Dispatcher(connection, hostname="returns@here"))

    with (
        Proxy(lambda: rabbitmq.port) as network,
        Connection(rabbitmq.url_through(network.port), connect_timeout=1) as lost,
        dispatcher(lost) as before,
    ):
        before.send("worker-online", retry=True)
        network.refuse()
        for _ in range(3):
            before.send("worker-heartbeat", retry=True)

    with Connection(rabbitmq.url) as connection, dispatcher(connection) as after:
        exchange = get_exchange(connection, name=app.conf.event_exchange)
        heard = Queue("celeryev.a-test", exchange, "worker.#", auto_delete=True)(connection.default_channel)
        heard.declare()
        after.extend_buffer(before)
        after.flush()

        message: Any = heard.get(no_ack=True)
        assert message.payload["type"] == "worker-heartbeat"
