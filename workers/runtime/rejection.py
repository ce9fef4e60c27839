# SPDX-License-Identifier: Apache-2.0
"""Reject a message to the dead letters, with its reason, and count losses of a message.

On RabbitMQ a worker publishes the dead letter and acknowledges the message. `basic.reject` carries no reason, and the
server of Debian 12 (3.10) fails to dead-letter a message whose sender wrote a malformed header `x-death`: the process of
the queue ends, and with some such messages the queue stays down.
"""

from logging import getLogger
from typing import Any, Final

import structlog

from schemas.reasons import DeadLetterReason
from schemas.topology import DEAD_LETTER_QUEUE
from tasks.quarantine.dead_letter import DEATH_HEADERS

log = structlog.get_logger()

MAX_HEADERS: Final = 16_384
"""Characters of a message's headers that its dead letter keeps. RabbitMQ closes the connection on a frame above 128 KiB."""
MAX_BODY: Final = 2 * 1_048_576
"""Bytes of a message's body that its dead letter keeps. A message that keeps the contract has half of it at most."""
MAX_TEXT: Final = 200
"""Characters of the task and the id that a dead letter without the other headers keeps."""

_COPIED_PROPERTIES: Final = ("correlation_id", "reply_to")


def reject(message: Any, errors: tuple[type[Exception], ...], defect: str) -> None:
    """Make a message that breaks the contract a dead letter. Does nothing for an acknowledged message.

    `errors`: those of a lost connection, after which the broker redelivers the message.
    """
    if not message.acknowledged:
        _log("message_rejected", message, defect)
        _make_dead_letter(message, errors, DeadLetterReason.REJECTED, defect)


def reject_unhandled(message: Any, errors: tuple[type[Exception], ...], error: Exception) -> None:
    """Make a message that a worker failed to hand over a dead letter, with the name of `error`."""
    if not message.acknowledged:
        detail = type(error).__name__
        _log("handover_failed", message, detail)
        _make_dead_letter(message, errors, DeadLetterReason.HANDOVER_FAILED, detail)


def count_loss(message: Any) -> None:
    """Count `message` as lost with its worker when its channel closes. RabbitMQ counts each redelivery."""
    count = getattr(message.channel, "count_loss", None)
    if count is not None:
        count(message.delivery_tag)


def _make_dead_letter(message: Any, errors: tuple[type[Exception], ...], reason: DeadLetterReason, detail: str) -> None:
    queue = (message.delivery_info or {}).get("routing_key") or ""
    message.rejection = {
        "x-quarantine-reason": reason.value,
        "x-quarantine-detail": detail,
        "x-quarantine-queue": queue,
    }
    if not _is_rabbitmq(message):
        message.reject_log_error(getLogger(__name__), errors)
        return
    try:
        # The acknowledgement follows on the same channel, so the server stores the letter before it removes the message.
        message.channel.basic_publish(_letter(message), exchange="", routing_key=DEAD_LETTER_QUEUE)
        message.ack()
    except errors as lost:
        log.warning("message_not_rejected", queue=queue, error=type(lost).__name__)


def _log(event: str, message: Any, reason: str) -> None:
    headers = message.headers if isinstance(message.headers, dict) else {}
    task_id = headers.get("id")
    log.error(
        event, reason=reason, queue=(message.delivery_info or {}).get("routing_key"),
        task_id=task_id if isinstance(task_id, str) else None,
    )  # fmt: skip


def _is_rabbitmq(message: Any) -> bool:
    return hasattr(message.channel, "confirm_select")


def _letter(message: Any) -> Any:
    """The dead letter on RabbitMQ: the message as it was sent, as far as the client can write it.

    Of headers and properties that are too long, or that AMQP carries and the client cannot write, it keeps task and id.
    """
    sent = message.headers if isinstance(message.headers, dict) else {}
    headers = {name: value for name, value in sent.items() if not str(name).startswith(DEATH_HEADERS)}
    raw = message.body.encode("utf-8", "surrogatepass") if isinstance(message.body, str) else bytes(message.body)
    marks = message.rejection | ({"x-quarantine-size": len(raw)} if len(raw) > MAX_BODY else {})
    body = raw[:MAX_BODY]
    known = message.properties or {}
    properties = {name: known[name] for name in _COPIED_PROPERTIES if known.get(name) is not None}
    if len(repr(headers)) <= MAX_HEADERS:
        try:
            letter = message.channel.prepare_message(
                body,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers=headers | marks,
                properties={**properties, "delivery_mode": 2},
            )
            letter._serialize_properties()  # noqa: SLF001 - fails before a part of the message is sent
        except Exception:  # noqa: BLE001 - a header that AMQP carries and the client cannot write
            log.info("dead_letter_without_headers", queue=marks["x-quarantine-queue"])
        else:
            return letter
    texts = {name: headers[name] for name in ("task", "id") if isinstance(headers.get(name), str)}
    kept = {name: text[:MAX_TEXT].encode("ascii", "replace").decode() for name, text in texts.items()}
    cut = {"x-quarantine-size": len(raw)}  # an operator cannot requeue it
    return message.channel.prepare_message(body, headers={**kept, **marks, **cut}, properties={"delivery_mode": 2})
