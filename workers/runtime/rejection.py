# SPDX-License-Identifier: Apache-2.0
"""Reject a message to the dead letters, with its reason where the broker can carry it, and count losses of a message."""

from logging import getLogger
from typing import Any, Final

import structlog

from schemas.reasons import DeadLetterReason
from schemas.topology import DEAD_LETTER_QUEUE

log = structlog.get_logger()

MAX_HEADERS: Final = 16_384
"""Characters of a message's headers that `reject_unhandled` publishes again. RabbitMQ closes the connection on a frame
above 128 KiB."""

_COPIED_PROPERTIES: Final = ("correlation_id", "reply_to")


def reject(message: Any, errors: tuple[type[Exception], ...], defect: str) -> None:
    """Make a message that breaks the contract a dead letter. Does nothing for an acknowledged message.

    `errors`: those of a lost connection, after which the broker redelivers the message. RabbitMQ's `basic.reject` carries
    no reason; housekeeping determines `defect` again from the message (`tasks.quarantine.dead_letter`).
    """
    if message.acknowledged:
        return
    _log("message_rejected", message, defect)
    message.rejection = {"x-quarantine-detail": defect}
    message.reject_log_error(getLogger(__name__), errors)


def reject_unhandled(message: Any, errors: tuple[type[Exception], ...], error: Exception) -> None:
    """Make a message that a worker failed to hand over a dead letter, with the name of `error`."""
    if message.acknowledged:
        return
    reason, detail = DeadLetterReason.HANDOVER_FAILED, type(error).__name__
    _log("handover_failed", message, detail)
    queue = (message.delivery_info or {}).get("routing_key") or ""
    message.rejection = {
        "x-quarantine-reason": reason.value,
        "x-quarantine-detail": detail,
        "x-quarantine-queue": queue,
    }
    try:
        if _is_rabbitmq(message) and _publish_letter(message):
            message.ack()
            return
    except errors as lost:
        log.warning("message_not_rejected", queue=queue, error=type(lost).__name__)
        return
    message.reject_log_error(getLogger(__name__), errors)


def count_loss(message: Any) -> None:
    """Count `message` as lost with its worker when its channel closes. RabbitMQ counts each redelivery."""
    count = getattr(message.channel, "count_loss", None)
    if count is not None:
        count(message.delivery_tag)


def _log(event: str, message: Any, reason: str) -> None:
    headers = message.headers if isinstance(message.headers, dict) else {}
    task_id = headers.get("id")
    log.error(
        event, reason=reason, queue=(message.delivery_info or {}).get("routing_key"),
        task_id=task_id if isinstance(task_id, str) else None,
    )  # fmt: skip


def _is_rabbitmq(message: Any) -> bool:
    return hasattr(message.channel, "confirm_select")


def _publish_letter(message: Any) -> bool:
    """Publish the dead letter on the channel of `message`; False for headers that the client cannot write.

    The acknowledgement follows on the same channel, so the server stores the letter before it removes the message.
    """
    headers = message.headers if isinstance(message.headers, dict) else {}
    if len(repr(headers)) > MAX_HEADERS:
        return False
    known = message.properties or {}
    properties = {name: known[name] for name in _COPIED_PROPERTIES if known.get(name) is not None}
    try:
        letter = message.channel.prepare_message(
            message.body,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers={**headers, **message.rejection},
            properties={**properties, "delivery_mode": 2},
        )
        letter._serialize_properties()  # noqa: SLF001 - fails before a part of the message is sent
    except Exception:  # noqa: BLE001 - a header that AMQP carries and the client cannot write
        return False
    message.channel.basic_publish(letter, exchange="", routing_key=DEAD_LETTER_QUEUE)
    return True
