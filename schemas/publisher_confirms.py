# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ's publisher confirms for many messages, awaited together.

A confirm for each message costs a round trip, and for a durable message a write to the server's disk. Fifty together cost
little more than one. Source: RabbitMQ's specification of `confirm.select`, and of `basic.return`, which precedes the
confirm of its message.
"""

from typing import Any, Generic, TypeVar

Tracked = TypeVar("Tracked")


class PublishRejectedError(ConnectionError):
    """The server rejected a message, or had no queue for it."""


class PublisherConfirms(Generic[Tracked]):
    """Messages that were published on a channel, and those of them that the server has confirmed. Not thread-safe.

    Open the channel's connection without kombu's `confirm_publish`, which waits for each confirm.
    """

    def __init__(self, channel: Any) -> None:
        """Enable confirms on py-amqp's `channel`, on which nothing was published yet.

        Raises `ValueError` when its connection waits for each confirm: it would consume the confirms first.
        """
        if channel.connection.confirm_publish:
            raise ValueError("the connection waits for each confirm: open it without confirm_publish")
        self._channel = channel
        self._last = 0
        self._pending: dict[int, tuple[str, Tracked]] = {}
        self._confirmed: list[tuple[str, Tracked]] = []
        self._rejected: dict[str, str] = {}
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)

    def track(self, queue: str, message: Tracked) -> None:
        """Record that `message` was published to `queue`. Call it once for each message, in order."""
        self._last += 1
        self._pending[self._last] = (queue, message)

    def wait(self, seconds: float) -> None:
        """Wait until the server has confirmed or rejected every tracked message.

        Raises `PublishRejectedError`, `TimeoutError` after `seconds` without a response, and the connection's errors.
        """
        while self._pending:
            if self._channel.connection is None:
                raise ConnectionResetError("the channel was closed")
            self._channel.connection.drain_events(timeout=seconds)
        if self._rejected:
            raise PublishRejectedError("; ".join(f"{queue}: {cause}" for queue, cause in self._rejected.items()))

    def take_confirmed(self) -> list[Tracked]:
        """Return the confirmed messages, each once; none of a queue for which the server rejected or returned one."""
        confirmed = [message for queue, message in self._confirmed if queue not in self._rejected]
        self._confirmed, self._rejected = [], {}
        return confirmed

    def _on_ack(self, number: int, multiple: bool) -> None:
        self._confirmed += self._pop(number, multiple)

    def _on_nack(self, number: int, multiple: bool) -> None:
        self._rejected.update((queue, "rejected by the server") for queue, _ in self._pop(number, multiple))

    def _on_return(self, error: Exception, _exchange: str, queue: str, _message: object) -> None:
        self._rejected[queue] = str(error)

    def _pop(self, number: int, multiple: bool) -> list[tuple[str, Tracked]]:
        """Remove message `number` from the pending ones; with `multiple`, all up to it."""
        numbers = [pending for pending in self._pending if pending <= number] if multiple else [number]
        return [self._pending.pop(each) for each in numbers]


def enable_confirms(channel: Any) -> PublisherConfirms[Any] | None:
    """Enable confirms on a kombu channel. `None` on Redis, where a publish without an error is complete."""
    return PublisherConfirms(channel) if hasattr(channel, "confirm_select") else None
