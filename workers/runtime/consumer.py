# SPDX-License-Identifier: Apache-2.0
"""A Celery consumer that rejects messages it cannot process, so that they become dead letters.

Celery acknowledges a message that it cannot decode, and logs its whole content. It does not expect parts of wrong types in
a message: those end the worker.
"""

from collections.abc import Callable
from typing import Any

from schemas.task_message import call_defect, envelope_defect, kept_headers
from schemas.topology import ANONYMOUS_EXCHANGE
from workers.runtime.event_dispatcher import NonBlockingConsumer
from workers.runtime.handover import discard_request
from workers.runtime.pool_drain import drain_job_acceptance
from workers.runtime.rejection import count_loss, reject, reject_unhandled


class Consumer(NonBlockingConsumer):
    """Rejects malformed and unknown messages. RabbitMQ and the atomic transport on Redis store them as dead letters."""

    controller: Any
    channel_errors: tuple[type[Exception], ...]

    class Blueprint(NonBlockingConsumer.Blueprint):  # type: ignore[misc,valid-type]  # a variable in its stubs
        """Celery's steps without delayed delivery: no message has an ETA, and its exchanges lead to every queue."""

        default_steps = [  # noqa: RUF012 - Celery's attribute
            step for step in NonBlockingConsumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """Return the handler of each message: Celery's, behind a check of the message."""
        handle = super().create_task_handler(*args, **options)

        def on_task_received(message: Any) -> Any:
            try:
                defect = self._defect(message)
            except Exception as error:  # noqa: BLE001 - no part of the check depends on the broker
                return reject_unhandled(message, self.connection_errors, error)
            if defect is not None:
                return self._reject(message, defect)
            # A task that is requeued is published to its queue, not to the exchange of the stations.
            message.delivery_info = {**message.delivery_info, "exchange": ANONYMOUS_EXCHANGE}
            try:
                return handle(message)
            except self._broker_errors:
                # Handling this message may have caused it: the broker redelivers it as often as the limit allows.
                count_loss(message)
                raise
            except Exception as error:  # noqa: BLE001 - any error: it would end the worker, and the next one
                discard_request(message)
                return reject_unhandled(message, self.connection_errors, error)

        return on_task_received

    @property
    def _broker_errors(self) -> tuple[type[Exception], ...]:
        """Errors after which Celery connects again. kombu lists `KeyError` among them for Redis."""
        errors: tuple[type[Exception], ...] = (*self.connection_errors, *self.channel_errors)
        return tuple(error for error in errors if error is not KeyError)

    def start(self) -> None:
        """Run until the worker ends. An error that ends it counts as a loss of each message that it holds."""
        try:
            super().start()
        except Exception:
            count_all = getattr(
                getattr(getattr(self, "task_consumer", None), "channel", None), "count_all_losses", None
            )
            if count_all is not None:
                count_all()
            raise

    def on_close(self) -> None:
        """Called when the connection closes. Running jobs finish; the broker redelivers the rest."""
        if self.controller.semaphore:
            self.controller.semaphore.clear()  # no further job starts
        drain_job_acceptance(self.pool, self.hub)
        super().on_close()

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Called for a message that is not a task message."""
        self._reject(message, "not_a_task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Called for a task that this worker has not registered."""
        self._reject(message, "unknown_task")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Called for a task message that Celery finds invalid."""
        self._reject(message, type(exc).__name__)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Called for a message that kombu cannot decompress or decode."""
        self._reject(message, self._defect(message) or type(exc).__name__)

    def _defect(self, message: Any) -> str | None:
        """The defect of a message; None for a task message that keeps the contract (`schemas.task_message`).

        The envelope is checked before the body is decoded. Celery sees no header outside the contract.
        """
        queue = (message.delivery_info or {}).get("routing_key") or ""
        properties = {
            **(message.properties or {}),
            "content_type": message.content_type,
            "content_encoding": message.content_encoding,
        }
        defect = envelope_defect(queue, properties, message.headers, message.body)
        if defect is not None:
            return defect
        headers = message.headers = kept_headers(message.headers)
        try:
            payload = message.payload
        except Exception as error:  # noqa: BLE001 - any error of the decoder means an unreadable message
            return type(error).__name__
        defect = call_defect(queue, headers["id"], payload)
        if defect is not None:
            return defect
        task: Any = self.app.tasks.get(headers["task"])
        if task is None:
            return "unknown_task"
        args, kwargs, _ = payload
        try:
            task.__header__(*args, **kwargs)
        except TypeError:
            return "other_arguments"
        return None

    def _reject(self, message: Any, defect: str) -> None:
        reject(message, self.connection_errors, defect)
