# SPDX-License-Identifier: Apache-2.0
"""What a worker tells of itself: once, and again over the next connection; never by waiting for the broker."""

from contextlib import closing

import pytest
from celery.events import get_exchange
from kombu import Connection, Queue

from tests.fault.proxy import Proxy
from workers.app import app


@pytest.mark.timeout(30)
def test_what_cannot_be_told_is_kept_for_the_next_connection(rabbitmq):
    """Celery sends a heartbeat with the order to try again until it is told, in the loop that does all of a worker's work."""

    def dispatcher(connection):
        return closing(app.events.Dispatcher(connection, hostname="returns@here"))

    with (
        Proxy(lambda: rabbitmq.port) as network,
        Connection(rabbitmq.url_by(network.port), connect_timeout=1) as lost,
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

        assert heard.get(no_ack=True).payload["type"] == "worker-heartbeat"
