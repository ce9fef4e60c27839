# SPDX-License-Identifier: Apache-2.0
"""kombu transport options: timeouts, and settings that limit redelivery."""

from typing import Any, Final

from kombu import Connection

from schemas.broker_url import Broker
from schemas.topology import DEAD_LETTER_QUEUE, DELIVERY_LIMIT

RESPONSE_TIMEOUT_SECONDS: Final = 5
CONNECT_TIMEOUT_SECONDS: Final = 3
DECLARE_TIMEOUT_SECONDS: Final = 15
"""Longer, because RabbitMQ creates a quorum queue on the disks of several members."""


def broker_options(broker: Broker, redis_visibility_timeout_seconds: int) -> dict[str, Any]:
    """Return the `transport_options` of kombu for `broker`.

    On Redis kombu sets no timeouts by default, and a lost server hangs a worker for ever. The two `unacked_restore`
    options redeliver a dead worker's messages right after `redis_visibility_timeout_seconds` instead of some 100 s later.
    On RabbitMQ each publish waits for its publisher confirm; a publisher of many messages uses
    `schemas.publisher_confirms` instead.
    """
    if not broker.is_redis:
        return {"confirm_publish": True, "connect_timeout": CONNECT_TIMEOUT_SECONDS, **broker.options}
    options: dict[str, Any] = {
        "socket_timeout": RESPONSE_TIMEOUT_SECONDS,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "health_check_interval": 10,
        "visibility_timeout": redis_visibility_timeout_seconds,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # A worker that is killed during a sweep keeps the lock so long, and no worker sweeps: kombu's default is 300 s.
        "unacked_mutex_expire": 10,
        "deadletter_queue": DEAD_LETTER_QUEUE,
        **broker.options,
    }
    if broker.scheme != "redis+socket":
        options["socket_keepalive"] = True
    return options


def atomic_options() -> dict[str, Any]:
    """Return the `transport_options` that make `workers.redis_transport.Connection` receive atomically on Redis."""
    return {"atomic_receive": True, "delivery_limit": DELIVERY_LIMIT}


def socket_timeouts(seconds: float) -> dict[str, float]:
    """Return the options of a RabbitMQ connection that waits at most `seconds` for each read and each write."""
    return {"read_timeout": seconds, "write_timeout": seconds}


def with_timeouts(connection: Connection, seconds: float) -> Connection:
    """Return `connection`, not opened yet; on RabbitMQ with `socket_timeouts` and without publisher confirms."""
    if connection.transport.driver_type == "amqp":
        connection.transport_options = {
            **(connection.transport_options or {}), "confirm_publish": False, **socket_timeouts(seconds),
        }  # fmt: skip
    return connection
