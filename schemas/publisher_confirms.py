# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ's receipts for what is published (publisher confirms), waited for together.

One by one each costs a trip, and for what must outlive the server a write to its disk; fifty at once cost little more
than one. Source: RabbitMQ's specification of `confirm.select` and of `basic.return`, which comes before its message's
receipt.
"""

from typing import Any, Generic, TypeVar

Sent = TypeVar("Sent")


class PublishRejectedError(ConnectionError):
    """The server refused something that it was given, or had no queue to put it in."""


class PublisherConfirms(Generic[Sent]):
    """What a channel was given, and what of it the server has. Not for two threads at once.

    The channel's connection is opened without kombu's `confirm_publish`, which waits each time.
    """

    def __init__(self, channel: Any) -> None:
        """From here on the server gives receipts. `channel`: py-amqp's, on which nothing was published yet.

        Raises `ValueError` when its connection waits for each: it would take the receipts away from here.
        """
        if channel.connection.confirm_publish:
            raise ValueError("the connection waits for each receipt itself: open it without confirm_publish")
        self._channel = channel
        self._last = 0
        self._awaited: dict[int, tuple[str, Sent]] = {}
        self._has: list[tuple[str, Sent]] = []
        self._refused: dict[str, str] = {}
        channel.confirm_select()
        channel.events["basic_ack"].add(self._taken)
        channel.events["basic_nack"].add(self._not_taken)
        channel.events["basic_return"].add(self._returned)

    def expect(self, queue: str, sent: Sent) -> None:
        """Say that `sent` was published for `queue`: once for each message, in order."""
        self._last += 1
        self._awaited[self._last] = (queue, sent)

    def wait(self, seconds: float) -> None:
        """Wait until the server has all that is expected.

        Raises `PublishRejectedError`, `TimeoutError` when it says nothing for so long, and whatever the connection raises.
        """
        while self._awaited:
            if self._channel.connection is None:
                raise ConnectionResetError("the channel was closed")
            self._channel.connection.drain_events(timeout=seconds)
        if self._refused:
            raise PublishRejectedError("; ".join(f"{queue}: {why}" for queue, why in self._refused.items()))

    def collect(self) -> list[Sent]:
        """Give what the server has, once; nothing for a queue of which it returned or refused anything."""
        has = [sent for queue, sent in self._has if queue not in self._refused]
        self._has, self._refused = [], {}
        return has

    def _taken(self, number: int, multiple: bool) -> None:
        self._has += self._numbered(number, multiple)

    def _not_taken(self, number: int, multiple: bool) -> None:
        self._refused.update((queue, "refused by the server") for queue, _ in self._numbered(number, multiple))

    def _returned(self, error: Exception, _exchange: str, queue: str, _message: object) -> None:
        self._refused[queue] = str(error)

    def _numbered(self, number: int, multiple: bool) -> list[tuple[str, Sent]]:
        numbers = [each for each in self._awaited if each <= number] if multiple else [number]
        return [self._awaited.pop(each) for each in numbers]


def confirms_of(channel: Any) -> PublisherConfirms[Any] | None:
    """The receipts for a kombu channel; `None` on Redis, where what was published without an error is there."""
    return PublisherConfirms(channel) if hasattr(channel, "confirm_select") else None
