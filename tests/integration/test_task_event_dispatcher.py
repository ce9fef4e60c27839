# SPDX-License-Identifier: Apache-2.0
"""The worker's event dispatcher on RabbitMQ: each event is sent once, failed ones with the next connection, without blocking."""

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
def test_dropped_connection_raises_a_timeout(whose, rabbitmq, monkeypatch):
    """A call on a connection that was dropped without closing ends with a timeout, and the worker reconnects."""
    for seconds in ("RESPONSE_TIMEOUT_SECONDS", "DECLARE_TIMEOUT_SECONDS"):
        monkeypatch.setattr(event_dispatcher, seconds, 1)

    with Proxy(lambda: rabbitmq.port) as network:

        def connection_with_options(**_):
            options = {"confirm_publish": True, "connect_timeout": 3}
            return Connection(rabbitmq.url_through(network.port), transport_options=options)

        consumer = SimpleNamespace(
            app=SimpleNamespace(
                connection_for_read=connection_with_options, connection_for_write=connection_with_options
            ),
            ensure_connected=lambda connection: connection,
        )
        with getattr(event_dispatcher.NonBlockingConsumer, f"connection_for_{whose}")(consumer) as connection:
            channel = connection.default_channel
            channel.basic_publish(channel.prepare_message(b"unconfirmed"), "", "nowhere")
            network.drop()
            channel.basic_publish(channel.prepare_message(b"unconfirmed"), "", "nowhere")
            with pytest.raises(TimeoutError):
                channel.basic_qos(0, 5, False)
            connection.collect()


def test_failed_event_is_sent_with_the_next_connection(rabbitmq):
    """Celery sends heartbeats with an endless retry, in the worker's main loop; the dispatcher buffers them instead."""

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
        received = Queue("celeryev.a-test", exchange, "worker.#", auto_delete=True)(connection.default_channel)
        received.declare()
        after.extend_buffer(before)
        after.flush()

        message: Any = received.get(no_ack=True)
        assert message.payload["type"] == "worker-heartbeat"
