# SPDX-License-Identifier: Apache-2.0
"""Celery's remote control, restricted to `ping` and inspection.

A client with access to the broker's exchange for remote control may otherwise shut a worker down, cancel its consumers,
revoke a scan or change the pool. Here a worker refuses every command outside `PERMITTED`, and replies to no exchange but
that of remote control: a reply elsewhere would be published with the worker's own permissions. systemd, Kubernetes or
TERM end a worker.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from celery.app.control import Control as CeleryControl
from kombu import Consumer
from kombu.pidbox import Mailbox as KombuMailbox
from kombu.pidbox import Node as KombuNode

log = structlog.get_logger()

_IDS_ONLY: Final = frozenset({"active", "reserved"})
"""Commands whose replies list requests. A request's arguments are a signed event, which no reply contains."""

PERMITTED: Final[Mapping[str, frozenset[str]]] = {
    "ping": frozenset(),
    "stats": frozenset(),
    "active_queues": frozenset(),
    "registered": frozenset(),
    "scheduled": frozenset(),
    "active": frozenset(),
    "reserved": frozenset(),
    "revoked": frozenset(),
    "conf": frozenset({"with_defaults"}),
    # Flower sends it at intervals. Every worker emits events from its start, so it has no effect.
    "enable_events": frozenset(),
}
"""Commands that a worker performs, each with the arguments that it accepts; others are ignored. Flower uses all of them."""

_LONGEST_NAME = 255
"""Longest name of a command, of a routing key and of a ticket, as in AMQP."""


class MalformedCommandError(ValueError):
    """The message is not a command, or its reply would leave remote control."""


@dataclass(frozen=True)
class Command:
    """A command for this worker, from a message whose sender is not known."""

    method: str
    arguments: dict[str, Any]
    reply_to: dict[str, str] | None
    """Exchange and routing key of the reply."""
    ticket: str | None


def read_command(body: object, hostname: str, reply_exchange: str) -> Command | None:
    """Return the command in `body` if it is for `hostname`; `None` for another worker's.

    Raises `MalformedCommandError` for a malformed message, for a pattern of host names, and for a reply to another exchange.
    """
    if not isinstance(body, dict):
        raise MalformedCommandError("the message is not an object")
    destination, reply_to, ticket = body.get("destination"), body.get("reply_to"), body.get("ticket")
    if destination is not None and not isinstance(destination, list):
        raise MalformedCommandError("destination is not a list")
    if destination and hostname not in destination:
        return None
    if body.get("pattern") or body.get("matcher"):
        raise MalformedCommandError("a pattern of host names is not supported")
    if reply_to is not None:
        if not isinstance(reply_to, dict) or reply_to.get("exchange") != reply_exchange:
            raise MalformedCommandError("reply_to is not the exchange for replies to remote control")
        reply_to = {"exchange": reply_exchange, "routing_key": _name(reply_to.get("routing_key"))}
    arguments = body.get("arguments")
    return Command(
        method=_name(body.get("method")),
        arguments=arguments if isinstance(arguments, dict) else {},
        reply_to=reply_to,
        ticket=None if ticket is None else _name(ticket),
    )


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or not value.isprintable():
        raise MalformedCommandError("a name is missing, too long or not printable")
    return value


class _ControlConsumer(Consumer):
    """Logs an unreadable message. Celery would reject it, and RabbitMQ closes the channel: the consumer has no acknowledgements."""

    @property
    def on_decode_error(self) -> Any:
        """Called for a message that kombu cannot decode."""
        return lambda _message, error: log.warning("remote_control_refused", reason=type(error).__name__)

    @on_decode_error.setter
    def on_decode_error(self, _callback: Any) -> None:
        """Ignore Celery's."""


class Node(KombuNode):
    """A worker's mailbox: performs the commands in `PERMITTED`."""

    hostname: str
    mailbox: Any
    handlers: dict[str, Any]
    state: Any
    channel: Any

    def Consumer(self, channel: Any = None, no_ack: bool = True, accept: Any = None, **options: Any) -> Consumer:  # noqa: N802
        """Return the consumer of this worker's commands."""
        queue = self.mailbox.get_queue(self.hostname)
        return _ControlConsumer(channel or self.channel, [queue], no_ack=True, accept=self.mailbox.accept, **options)

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """Perform the command of a message, if it is for this worker."""
        try:
            command = read_command(body, self.hostname, self.mailbox.reply_exchange.name)
        except MalformedCommandError as error:
            log.warning("remote_control_refused", reason=str(error))
            return None
        if command is None:
            return None
        return self.dispatch(command.method, command.arguments, command.reply_to, command.ticket)

    def handle(self, method: str, arguments: Any = None) -> Any:
        """Return the result of a permitted command; an error for another one."""
        if method not in PERMITTED:
            log.warning("remote_control_refused", reason=f"{method[:40]} is not permitted")
            return {"error": f"{method[:40]} is not permitted: workers perform ping and inspection only"}
        accepted = {name: value for name, value in (arguments or {}).items() if name in PERMITTED[method]}
        result = self.handlers[method](self.state, **accepted)
        if method in _IDS_ONLY:
            return [{**request, "args": None, "kwargs": None} for request in result]
        return result


class Mailbox(KombuMailbox):
    """Celery's mailbox with `Node`."""

    node_cls = Node


class Control(CeleryControl):
    """Celery's remote control with `Mailbox`."""

    Mailbox = Mailbox
