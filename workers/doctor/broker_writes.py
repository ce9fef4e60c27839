# SPDX-License-Identifier: Apache-2.0
"""Check that the broker accepts messages: one that responds may still refuse or block them."""

from collections.abc import Iterator
from typing import Any, Final

import redis
from kombu import Connection

from schemas import topology
from workers.doctor.finding import Finding

CONFIRM_SECONDS: Final = 3.0
"""Time that RabbitMQ has to confirm a message. While an alarm is on, it reads none."""
_NO_LIST: Final = f"{topology.DEAD_LETTER_QUEUE}.readiness"
"""A list that does not exist, in reach of every worker's user."""
_NO_QUEUE: Final = "bookdrop.readiness"
_ACCESS_REFUSED: Final = 403


def accepted_by_redis(client: "redis.Redis") -> Iterator[Finding]:
    """Yield a finding if Redis refuses a write. The write changes nothing: it appends to a list only if that exists."""
    try:
        client.lpushx(_NO_LIST, "")
    except redis.exceptions.NoPermissionError:
        return  # a user who publishes nothing
    except redis.ResponseError as error:
        yield Finding(
            "broker",
            ok=False,
            message=f"it refuses writes: {error}",
            advice="Connect to the master if this is a replica; free or add memory if it is full; free its disk if it cannot"
            " save. Scans wait at the stations meanwhile.",
        )


def confirmed_by_rabbitmq(connection: Connection) -> Iterator[Finding]:
    """Yield a finding if RabbitMQ does not confirm messages. No queue gets them, so RabbitMQ discards them at once.

    During an alarm RabbitMQ blocks a connection with its first message, which it still confirms; so there are two.
    """
    reasons: list[str] = []
    channel: Any = connection.channel()  # a separate one, because RabbitMQ closes it when it refuses access
    channel.connection.on_blocked = reasons.append
    try:
        for _ in range(2):
            channel.basic_publish(
                channel.prepare_message(b""), exchange="", routing_key=_NO_QUEUE, confirm_timeout=CONFIRM_SECONDS
            )
    except TimeoutError:
        cause = f": {reasons[0]}" if reasons else ""
        yield Finding(
            "broker",
            ok=False,
            message=f"it does not confirm a message within {CONFIRM_SECONDS:.0f} s{cause}",
            advice="Run 'rabbitmq-diagnostics alarms': RabbitMQ blocks all messages while its memory or its disk is short."
            " Scans wait at the stations meanwhile.",
        )
        connection.collect(socket_timeout=0.1)  # without the handshake of a close, which RabbitMQ does not read either
    except connection.channel_errors as error:
        if getattr(error, "reply_code", None) != _ACCESS_REFUSED:  # a user who publishes nothing
            raise
    else:
        channel.close()
