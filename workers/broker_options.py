# SPDX-License-Identifier: Apache-2.0
"""How the broker is spoken to: what each transport must be told so that nothing hangs and little is delivered twice."""

from typing import Any, Final

from kombu import Connection

from schemas.broker_url import Broker
from schemas.topology import DEAD_LETTER_QUEUE

SECONDS_TO_ANSWER: Final = 5
SECONDS_TO_CONNECT: Final = 3
SECONDS_TO_DECLARE: Final = 15
"""RabbitMQ takes its time to make queues on several disks."""


def broker_options(broker: Broker, redis_visibility_timeout_seconds: int) -> dict[str, Any]:
    """The `transport_options` of kombu for `broker`.

    On Redis the timeouts are None by default, and a lost server hangs a worker for ever; the two `unacked_restore`
    options bring a dead worker's messages back right after `redis_visibility_timeout_seconds` instead of some 100 s later.
    On RabbitMQ each publish waits until the server has it; whoever publishes many together asks for `schemas.publisher_confirms`
    instead.
    """
    if not broker.is_redis:
        return {"confirm_publish": True, "connect_timeout": SECONDS_TO_CONNECT, **broker.options}
    options: dict[str, Any] = {
        "socket_timeout": SECONDS_TO_ANSWER,
        "socket_connect_timeout": SECONDS_TO_CONNECT,
        "health_check_interval": 10,
        "visibility_timeout": redis_visibility_timeout_seconds,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # A worker killed in a sweep keeps all others from sweeping for so long: five minutes, if it were not said.
        "unacked_mutex_expire": 10,
        "deadletter_queue": DEAD_LETTER_QUEUE,
        **broker.options,
    }
    if broker.scheme != "redis+socket":
        options["socket_keepalive"] = True
    return options


def atomic_options(delivery_limit: int) -> dict[str, Any]:
    """The `transport_options` that make `workers.redis_transport.transport.Connection` receive atomically on Redis."""
    return {"atomic_receive": True, "delivery_limit": delivery_limit}


def limits(seconds: float) -> dict[str, float]:
    """RabbitMQ: options for a connection that waits no longer for any answer, nor for the server to take what is said."""
    return {"read_timeout": seconds, "write_timeout": seconds}


def bounded(connection: Connection, seconds: float) -> Connection:
    """`connection`, not opened yet, which on RabbitMQ waits no longer than that for an answer, and for no receipt."""
    if connection.transport.driver_type == "amqp":
        connection.transport_options = {
            **(connection.transport_options or {}), "confirm_publish": False, **limits(seconds),
        }  # fmt: skip
    return connection
